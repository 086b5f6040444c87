// `kasane check`: compares overlay, origins, ancestors and index, and says what is wrong.
import type { Command } from 'commander';
import { EXIT } from '../control/exit-codes.ts';
import { checkJson, type Json } from '../control/json.ts';
import { notThereYet } from '../control/protocol.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { absolute, shown, workingDirectory } from './paths.ts';
import { withTarget } from './targets.ts';

interface CheckOptions {
  repair?: boolean;
  state?: string;
  json?: boolean;
}

export function addCheck(program: Command, context: Context): void {
  program
    .command('check <overlay>')
    .description('compare an overlay (or a mount) with its index; changes nothing. Exit 4 if there is damage')
    .option('--repair', 'mend what can be mended (not there yet)')
    .option('--state <dir>', 'where its state lies, if it was mounted with --state')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane check /srv/guests/web1'))
    .action(
      ending(context, async (path: string, opts: CheckOptions) => {
        if (opts.repair) throw notThereYet('--repair');
        const findings: Json[] = [];
        const state = opts.state === undefined ? null : absolute(opts.state, workingDirectory());
        const report = await withTarget(
          path,
          (target) =>
            target.verbs.check({ repair: false }, (item) => {
              if (opts.json) findings.push(checkJson(item));
              else
                context.io.out(
                  `${item.severity}\t${item.code}\t${shown(item.path) || '-'}\t${item.message}\n`,
                );
            }),
          { state, anyOverlay: true },
        );
        if (opts.json) context.io.json({ ...report, findings });
        else {
          const { objects, origins, ancestors, records, damage, warnings } = report;
          const seen = `${objects} objects, ${origins} origins, ${ancestors} ancestors, ${records} records`;
          context.io.out(
            `${seen}: ${damage === 0 ? 'no damage' : `${damage} damaged`}, ${warnings} warnings\n`,
          );
        }
        return report.damage > 0 ? EXIT.refused : EXIT.ok;
      }),
    );
}
