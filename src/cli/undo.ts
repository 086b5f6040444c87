// `kasane undo`: takes back the last merge or resolution of a path, or the event SEQ of a mount.
import type { Command } from 'commander';
import { EXIT } from '../control/exit-codes.ts';
import { undoJson } from '../control/json.ts';
import type { UndoReport } from '../control/verbs.ts';
import { wholeNumber } from './conflict-id.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { shown } from './paths.ts';
import { hostPath, withTarget } from './targets.ts';

export function undoLine(report: UndoReport, path: string): string {
  const notes = [`${report.kind} ${report.seq} taken back`];
  if (report.reopened !== null) notes.push(`conflict ${report.reopened} is open again`);
  if (report.keptVersion !== null) notes.push(`what was there is version ${report.keptVersion}`);
  return `${path}: ${notes.join('; ')}\n`;
}

export function addUndo(program: Command, context: Context): void {
  program
    .command('undo <path> [seq]')
    .description('take back the last merge or resolution of a path; or of a mount, event SEQ')
    .option('--force', "the guest has changed the file since: keep today's bytes as a version, then undo")
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane undo /mnt/web1/etc/passwd', 'kasane undo /mnt/web1 42'))
    .action(
      ending(
        context,
        async (path: string, seq: string | undefined, opts: { force?: boolean; json?: boolean }) => {
          await withTarget(path, async (target) => {
            const what = seq === undefined ? { path: target.path } : { seq: wholeNumber('undo', seq) };
            const report = await target.verbs.undo({
              target: what,
              force: opts.force === true,
              repeatOk: false,
            });
            if (opts.json) context.io.json(undoJson(report));
            else context.io.out(undoLine(report, shown(hostPath(target, report.path))));
          });
          return EXIT.ok;
        },
      ),
    );
}
