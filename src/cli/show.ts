// `kasane show`: the bytes of one side, or of a version of the history.
import type { Command } from 'commander';
import { EXIT } from '../control/exit-codes.ts';
import { pathJson, sideJson } from '../control/json.ts';
import { type ShowRequest, sides } from '../control/verbs.ts';
import { conflictTarget, wholeNumber } from './conflict-id.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { usage } from './io.ts';
import { shown } from './paths.ts';
import { withTarget } from './targets.ts';

interface ShowOptions {
  side?: string;
  version?: string;
  json?: boolean;
}

function whatToShow(opts: ShowOptions): ShowRequest['what'] {
  if ((opts.side === undefined) === (opts.version === undefined))
    throw usage('name either --side or --version');
  if (opts.version !== undefined) return { version: wholeNumber('--version', opts.version) };
  const side = sides.find((one) => one === opts.side);
  if (side === undefined) throw usage(`--side ${shown(opts.side ?? '')}: one of ${sides.join(', ')}`);
  return { side };
}

export function addShow(program: Command, context: Context): void {
  program
    .command('show <path> [id]')
    .description('the bytes of one side of a file, or of a mount and the id of a conflict')
    .option('--side <side>', sides.join(', '))
    .option('--version <n>', 'a version of the history, as in log')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane show --side base /mnt/web1/etc/passwd'))
    .action(
      ending(context, async (path: string, id: string | undefined, opts: ShowOptions) => {
        const what = whatToShow(opts);
        await withTarget(path, async (target) => {
          const parts: Buffer[] = [];
          const report = await target.verbs.show(
            { target: conflictTarget(target, id).target, what },
            async ({ data }) => {
              const bytes = Buffer.from(data, 'base64');
              if (opts.json) parts.push(bytes);
              else await context.io.outBytes(bytes);
            },
          );
          if (opts.json) {
            const content = Buffer.concat(parts).toString('base64');
            context.io.json({ ...pathJson(report.path), ...sideJson(report), content });
          }
        });
        return EXIT.ok;
      }),
    );
}
