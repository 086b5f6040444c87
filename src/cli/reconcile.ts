// `kasane reconcile`: every stale file now, waiting for what has not settled.
import type { Command } from 'commander';
import { EXIT } from '../control/exit-codes.ts';
import { reconcileJson } from '../control/json.ts';
import { conflictLine } from '../control/text.ts';
import type { ReconcileReport } from '../control/verbs.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { shown } from './paths.ts';
import { withTarget } from './targets.ts';

export function reconcileText(report: ReconcileReport): string {
  const counts = [`${report.looked} looked at`];
  for (const name of ['merged', 'dropped', 'adopted', 'kept', 'pending', 'failed'] as const) {
    if (report[name] > 0) counts.push(`${report[name]} ${name}`);
  }
  if (report.conflicts.length > 0) counts.push(`${report.conflicts.length} in conflict`);
  const head = report.dryRun ? 'would be: ' : '';
  const base = report.baseAccepted ? '; base accepted' : '';
  return `${head}${counts.join(', ')}${base}\n${report.conflicts.map(conflictLine).join('')}`;
}

export function addReconcile(program: Command, context: Context): void {
  program
    .command('reconcile <path>')
    .description(
      'bring every stale file at or beneath PATH up to date; naming a file lifts its pin. Exit 1 if conflicts are left, 4 if something failed, or the overlay is full',
    )
    .option('--dry-run', 'say what would happen, change nothing')
    .option('--accept-base', 'take a base of another release, or one that lost much, as the right one')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane reconcile /mnt/web1'))
    .action(
      ending(
        context,
        async (path: string, opts: { dryRun?: boolean; acceptBase?: boolean; json?: boolean }) => {
          const report = await withTarget(path, (target) =>
            target.verbs.reconcile(
              { path: target.path, dryRun: opts.dryRun === true, acceptBase: opts.acceptBase === true },
              (item) => {
                const name = shown(item.path);
                context.io.progress(`${item.done}/${item.total} ${item.outcome ?? 'waiting'} ${name}`);
                if (opts.json || item.outcome === null || item.outcome === 'current') return;
                const why = item.detail === '' ? '' : `\t${item.detail}`;
                context.io.out(`${item.outcome}\t${name}${why}\n`);
              },
            ),
          );
          if (opts.json) context.io.json(reconcileJson(report));
          else context.io.out(reconcileText(report));
          // Conflicts are for a person to decide; this is a failure, and nothing to be decided.
          if (report.failed > 0 || report.full > 0) return EXIT.refused;
          return report.conflicts.length > 0 ? EXIT.conflicts : EXIT.ok;
        },
      ),
    );
}
