// `kasane conflicts`: one line each, exit 1 if there are any.
import type { Command } from 'commander';
import { connectVerbs } from '../control/client.ts';
import { EXIT, type ExitCode } from '../control/exit-codes.ts';
import { conflictJson, type Json } from '../control/json.ts';
import { isWithin } from '../control/mountinfo.ts';
import { readRegistrations } from '../control/registry.ts';
import { conflictLine } from '../control/text.ts';
import type { Conflict } from '../control/verbs.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { reportError } from './io.ts';
import { shown } from './paths.ts';
import { withTarget } from './targets.ts';

export function addConflicts(program: Command, context: Context): void {
  program
    .command('conflicts [path]')
    .description(
      'open conflicts, one line each: id, kind, path; without a path, of all mounts. Exit 1 if any',
    )
    .option(...JSON_OPTION)
    .addHelpText('after', example('kasane conflicts /mnt/web1'))
    .action(
      ending(context, async (path: string | undefined, opts: { json?: boolean }) => {
        if (path === undefined) return ofAll(context, opts.json === true);
        const list = await withTarget(path, async (target) =>
          beneath(await target.verbs.conflicts(), target.path),
        );
        if (opts.json) context.io.json(list.map(conflictJson));
        else context.io.out(list.map(conflictLine).join(''));
        return list.length > 0 ? EXIT.conflicts : EXIT.ok;
      }),
    );
}

/** Those at or beneath a path of the union. */
export function beneath(conflicts: readonly Conflict[], path: string): Conflict[] {
  return conflicts.filter((one) => path === '' || isWithin(one.path, path));
}

/** As of one mount, with the mount point first. */
async function ofAll({ io }: Context, json: boolean): Promise<ExitCode> {
  let failed = false;
  const all: Json[] = [];
  for (const found of readRegistrations()) {
    if (!found.alive) continue;
    const mountPoint = shown(found.registration.mountPoint);
    try {
      for (const conflict of await connectVerbs(found.paths.socket).conflicts()) {
        all.push({ mountPoint, ...conflictJson(conflict) });
        if (!json) io.out(`${mountPoint}\t${conflictLine(conflict)}`);
      }
    } catch (error) {
      reportError(io, 'conflicts', error);
      failed = true;
    }
  }
  if (json) io.json(all);
  if (failed) return EXIT.unreachable;
  return all.length > 0 ? EXIT.conflicts : EXIT.ok;
}
