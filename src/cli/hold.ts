// `kasane hold`: runs an update of the base as one change. Not there yet.
import type { Command } from 'commander';
import { notThereYet } from '../control/protocol.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';

export function addHold(program: Command, context: Context): void {
  program
    .command('hold <base> [command...]')
    .description('run an update as one change: nothing merges half of it (not there yet)')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane hold /srv/base -- apt-get upgrade'))
    .action(ending(context, () => Promise.reject(notThereYet('hold'))));
}
