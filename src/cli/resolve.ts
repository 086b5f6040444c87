// `kasane resolve`: decides a conflict.
import * as fs from 'node:fs';
import type { Command } from 'commander';
import { EXIT } from '../control/exit-codes.ts';
import { resolveJson } from '../control/json.ts';
import { type ResolveRequest, takes } from '../control/verbs.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { conflictTarget, wholeNumber } from './conflict-id.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { usage } from './io.ts';
import { absolute, bytesOf, shown, workingDirectory } from './paths.ts';
import { hostPath, withTarget } from './targets.ts';

interface ResolveOptions {
  take?: string;
  file?: string;
  rev?: string;
  recursive?: boolean;
  json?: boolean;
}

const FILE_LIMIT = 256 * 1024 * 1024;

/** What is to be put in place. */
export function whatToTake(opts: Pick<ResolveOptions, 'take' | 'file'>): ResolveRequest['take'] {
  if ((opts.take === undefined) === (opts.file === undefined)) {
    throw usage(`name either --take ${takes.join('|')} or --file FILE`);
  }
  if (opts.file !== undefined) return { content: readContent(opts.file).toString('base64') };
  const take = takes.find((one) => one === opts.take);
  if (take === undefined) throw usage(`--take ${shown(opts.take ?? '')}: one of ${takes.join(', ')}`);
  return take;
}

function readContent(typed: string): Buffer {
  const file = bytesOf(absolute(typed, workingDirectory()));
  try {
    const { size } = fs.statSync(file);
    if (size > FILE_LIMIT) throw new FsError(E.EFBIG, `--file ${shown(typed)}: larger than 256 MiB`);
    return fs.readFileSync(file);
  } catch (error) {
    if (error instanceof FsError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    const why =
      code === 'ENOENT' ? 'no such file' : code === 'EISDIR' ? 'is a directory' : `cannot be read (${code})`;
    throw new FsError(E.EINVAL, `--file ${shown(typed)}: ${why}`, error);
  }
}

export function addResolve(program: Command, context: Context): void {
  program
    .command('resolve <path> [id]')
    .description('decide a conflict: of a path, or of a mount and ID or ID@REV')
    .option('--take <side>', `${takes.join(', ')}`)
    .option('--file <file>', 'the bytes of FILE instead of a side')
    .option('--rev <n>', 'refuse if a side has moved since revision N was looked at')
    .option('-r, --recursive', 'every conflict beneath a directory')
    .option(...JSON_OPTION)
    .addHelpText(
      'after',
      example(
        'kasane resolve /mnt/web1/etc/passwd --take overlay',
        'kasane resolve /mnt/web1 17@3 --take base',
      ),
    )
    .action(
      ending(context, async (path: string, id: string | undefined, opts: ResolveOptions) => {
        const take = whatToTake(opts);
        const asked = opts.rev === undefined ? null : wholeNumber('--rev', opts.rev);
        await withTarget(path, async (target) => {
          const named = conflictTarget(target, id);
          if (named.rev !== null && asked !== null && named.rev !== asked)
            throw usage('--rev and ID@REV differ');
          const report = await target.verbs.resolve({
            target: named.target,
            rev: named.rev ?? asked,
            take,
            recursive: opts.recursive === true,
            repeatOk: false,
          });
          if (opts.json) context.io.json(resolveJson(report));
          else
            for (const one of report.resolved)
              context.io.out(`${one.id}\t${shown(hostPath(target, one.path))}\n`);
        });
        return EXIT.ok;
      }),
    );
}
