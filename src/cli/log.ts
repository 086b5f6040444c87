// `kasane log`: the story of one file, or of the whole overlay, oldest first.
import type { Command } from 'commander';
import { EXIT } from '../control/exit-codes.ts';
import { type Json, logJson, timeText } from '../control/json.ts';
import type { LogEntry } from '../control/verbs.ts';
import { escapeName } from '../lib/names.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { withTarget } from './targets.ts';

export function logLine(entry: LogEntry): string {
  const notes = [];
  if (entry.detail !== '') notes.push(entry.detail);
  if (entry.conflict !== null) notes.push(`conflict ${entry.conflict}`);
  if (entry.version !== null) notes.push(`version ${entry.version}`);
  if (entry.undoable) notes.push('can be undone');
  const tail = notes.length === 0 ? '' : `  (${notes.join('; ')})`;
  return `${entry.seq}  ${timeText(entry.time)}  ${entry.kind}  ${escapeName(entry.path) || '-'}${tail}\n`;
}

export function addLog(program: Command, context: Context): void {
  program
    .command('log <path>')
    .description('copy-up, merges, conflicts and resolutions of one file, or of the whole overlay')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane log /mnt/web1/etc/ssh/sshd_config'))
    .action(
      ending(context, async (path: string, opts: { json?: boolean }) => {
        const all: Json[] = [];
        await withTarget(path, (target) =>
          target.verbs.log({ path: target.path }, (entry) => {
            if (opts.json) all.push(logJson(entry));
            else context.io.out(logLine(entry));
          }),
        );
        if (opts.json) context.io.json(all);
        return EXIT.ok;
      }),
    );
}
