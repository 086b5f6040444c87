// `kasane plan`: what an update would do to every guest. Not there yet.
import type { Command } from 'commander';
import { notThereYet } from '../control/protocol.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';

export function addPlan(program: Command, context: Context): void {
  program
    .command('plan <overlays...>')
    .description('what an update of the base would do to every guest (not there yet)')
    .requiredOption('--base <dir>', 'the base as it would be')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane plan --base /srv/base.next /srv/guests/*'))
    .action(ending(context, () => Promise.reject(notThereYet('plan'))));
}
