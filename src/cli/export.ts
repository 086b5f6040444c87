// `kasane export`: configuration for an NFS server. Not there yet.
import type { Command } from 'commander';
import { notThereYet } from '../control/protocol.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';

export function addExport(program: Command, context: Context): void {
  program
    .command('export <mountpoint>')
    .description('configuration for an NFS server (not there yet)')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane export /mnt/web1'))
    .action(ending(context, () => Promise.reject(notThereYet('export'))));
}
