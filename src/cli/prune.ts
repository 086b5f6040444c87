// `kasane prune`: history by retention. Not there yet.
import type { Command } from 'commander';
import { notThereYet } from '../control/protocol.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';

export function addPrune(program: Command, context: Context): void {
  program
    .command('prune <path>')
    .description('drop old versions by retention (not there yet)')
    .option('--dry-run', 'say what would go, change nothing')
    .option('--forget <path>', "erase a path's history")
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane prune /mnt/web1 --dry-run'))
    .action(ending(context, () => Promise.reject(notThereYet('prune'))));
}
