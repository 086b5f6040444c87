// `kasane export`: configuration for an NFS server, on stdout.
import type { Command } from 'commander';
import { EXIT } from '../control/exit-codes.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { withTarget } from './targets.ts';

export function addExport(program: Command, context: Context): void {
  program
    .command('export <mountpoint>')
    .description(
      'configuration for an NFS server (NFS-Ganesha, and a line of exports(5)); needs mount --export',
    )
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane export /mnt/web1 > /etc/ganesha/ganesha.conf'))
    .action(
      ending(context, async (path: string, opts: { json?: boolean }) => {
        const { text } = await withTarget(path, (target) => target.verbs.exportConfig());
        if (opts.json) context.io.json({ text });
        else context.io.out(text);
        return EXIT.ok;
      }),
    );
}
