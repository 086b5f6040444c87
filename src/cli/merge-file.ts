// `kasane merge-file`: the merge alone, on three files; usable as git's merge driver.
import * as fs from 'node:fs';
import type { Command } from 'commander';
import { EXIT } from '../control/exit-codes.ts';
import { E } from '../lib/errno.ts';
import { FsError } from '../lib/errors.ts';
import { type Context, ending, example, JSON_OPTION } from './context.ts';
import { absolute, bytesOf, shown, workingDirectory } from './paths.ts';

interface MergeFileOptions {
  as?: string;
  write?: boolean;
  json?: boolean;
}

export function addMergeFile(program: Command, context: Context): void {
  program
    .command('merge-file <ancestor> <overlay> <base>')
    .description('merge three files; conflicts are marked in diff3 style. Exit 1 if there are any')
    .option('--as <path>', 'merge as the file at this path would be')
    .option('-w, --write', 'write the result into OVERLAY instead of to stdout')
    .option(...JSON_OPTION)
    .addHelpText(
      'after',
      example(
        'kasane merge-file passwd.orig passwd.mine passwd.new',
        'git config merge.kasane.driver "kasane merge-file -w %O %A %B"',
      ),
    )
    .action(
      ending(context, async (ancestor: string, overlay: string, base: string, opts: MergeFileOptions) => {
        const inputs = [ancestor, overlay, base].map(readInput) as [Buffer, Buffer, Buffer];
        const binary = [ancestor, overlay, base].find((_, i) => (inputs[i] as Buffer).includes(0));
        if (binary !== undefined)
          throw new FsError(E.EBADMSG, `${shown(binary)}: binary: it holds a NUL byte`);
        const { conflict, out } = await merge(inputs, opts.as ?? overlay);
        if (opts.write) replaceFile(overlay, out);
        if (opts.json) {
          context.io.json({
            conflict,
            ...(opts.write ? {} : { content: Buffer.from(out).toString('base64') }),
          });
        } else if (!opts.write) {
          await context.io.outBytes(out);
        }
        return conflict ? EXIT.conflicts : EXIT.ok;
      }),
    );
}

/**
 * As the file at `path` is merged in a mount: formats that take a merge by record are a conflict when both sides
 * changed, and what does not parse any more is one, too; the result is the overlay's file then.
 */
async function merge(
  inputs: readonly [Buffer, Buffer, Buffer],
  path: string,
): Promise<{ conflict: boolean; out: Buffer }> {
  const { mergeText } = await import('../merge/index.ts');
  const { isRecordFormat } = await import('../merge/policy.ts');
  const { checkMerged } = await import('../merge/checks.ts');
  const [ancestor, overlay, base] = inputs;
  const name = path.replace(/^\/+/, '');
  const merged = mergeText(ancestor, overlay, base);
  const bothChanged = !overlay.equals(ancestor) && !base.equals(ancestor) && !overlay.equals(base);
  const refused =
    bothChanged && (isRecordFormat(name) || checkMerged(name, merged.out, [overlay, base]) !== null);
  return merged.conflict || !refused ? merged : { conflict: true, out: overlay };
}

function readInput(typed: string): Buffer {
  try {
    return fs.readFileSync(bytesOf(absolute(typed, workingDirectory())));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const errno = code !== undefined && code in E ? E[code as keyof typeof E] : E.EIO;
    const why =
      code === 'ENOENT' ? 'no such file' : code === 'EISDIR' ? 'is a directory' : `cannot be read (${code})`;
    throw new FsError(errno === E.EISDIR ? E.EINVAL : errno, `${shown(typed)}: ${why}`, error);
  }
}

/** In place, as git's drivers do: the file's mode, owner and links stay. */
function replaceFile(typed: string, content: Uint8Array): void {
  try {
    fs.writeFileSync(bytesOf(absolute(typed, workingDirectory())), content);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const errno = code !== undefined && code in E ? E[code as keyof typeof E] : E.EIO;
    throw new FsError(errno, `${shown(typed)}: cannot be written (${code})`, error);
  }
}
