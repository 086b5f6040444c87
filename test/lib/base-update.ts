// Updates of a base as the real tools make them. They write to the base's own directory, never through a mount.
import * as fs from 'node:fs/promises';
import { runOk, sleep } from './run.ts';

/**
 * Puts a new file over `file` as dpkg does: written beside it under NAME.dpkg-new, owner, mode and times set,
 * synced, renamed over it. dpkg sets the mtime that the package has; `keepMtime` gives it the old file's, as
 * happens when a package is rebuilt with clamped times.
 */
export async function dpkgReplace(
  file: string,
  content: string | Uint8Array,
  options: { keepMtime?: boolean; mode?: number } = {},
): Promise<void> {
  const old = await statOrNull(file);
  const temporary = `${file}.dpkg-new`;
  const handle = await fs.open(temporary, 'w', 0o600);
  try {
    await handle.writeFile(content);
    await handle.chown(old?.uid ?? 0, old?.gid ?? 0);
    await handle.chmod(options.mode ?? (old ? old.mode & 0o7777 : 0o644));
    // touch keeps the nanoseconds; utimes of a Date does not.
    if (options.keepMtime && old) await runOk('touch', ['-r', file, temporary]);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await fs.rename(temporary, file);
}

/**
 * Waits until a copy of this file says of itself when it was made: of one that is made within the second of the
 * base's last change it cannot be known that it is of that version, so it is looked at once more, whenever that is.
 */
export async function ripen(file: string): Promise<void> {
  const { ctimeMs } = await fs.stat(file);
  const isRipe = () => Math.floor(Date.now() / 1000) * 1000 > ctimeMs + 100;
  while (!isRipe()) await sleep(20);
}

/** As an editor with backupcopy=yes does: the same inode, truncated and written. */
export async function editInPlace(file: string, content: string | Uint8Array): Promise<void> {
  await fs.writeFile(file, content);
}

async function statOrNull(file: string) {
  try {
    return await fs.stat(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
