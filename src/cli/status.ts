// `kasane status`: of one mount or overlay, or of all mounts.
import type { Command } from 'commander';
import { EXIT, type ExitCode } from '../control/exit-codes.ts';
import { type Json, statusJson } from '../control/json.ts';
import { readRegistrations } from '../control/registry.ts';
import { statusText } from '../control/text.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { reportError } from './io.ts';
import { askStatus } from './list.ts';
import { withTarget } from './targets.ts';

export function addStatus(program: Command, context: Context): void {
  program
    .command('status [path]')
    .description('counts, epoch, state of the base, bytes, effective options; without a path, of all mounts')
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane status /mnt/web1'))
    .action(
      ending(context, async (path: string | undefined, opts: { json?: boolean }) => {
        if (path === undefined) return statusOfAll(context, opts.json === true);
        const status = await withTarget(path, ({ verbs }) => verbs.status());
        if (opts.json) context.io.json(statusJson(status));
        else context.io.out(statusText(status, 'owner'));
        return EXIT.ok;
      }),
    );
}

async function statusOfAll({ io }: Context, json: boolean): Promise<ExitCode> {
  let code: ExitCode = EXIT.ok;
  const reports: Json[] = [];
  const texts: string[] = [];
  for (const found of readRegistrations()) {
    if (!found.alive) continue;
    try {
      const status = await askStatus(found);
      reports.push(statusJson(status));
      texts.push(statusText(status, 'owner'));
    } catch (error) {
      reportError(io, 'status', error);
      code = EXIT.unreachable;
    }
  }
  if (json) io.json(reports);
  else io.out(texts.join('\n'));
  return code;
}
