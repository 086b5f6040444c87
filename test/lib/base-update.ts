// Updates of a base as the real tools make them. They write to the base's own directory, never through a mount.
// Synchronous, as all that writes to a base must be: what is open while this process forks, the child has open, too,
// until it runs another program. Whoever looks meanwhile finds a file that somebody may still write to, and does not
// judge it. A call on this thread never meets a fork of this thread; one on a thread of Node's pool does.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { runOk, sleep } from './run.ts';

export interface ReplaceOptions {
  keepMtime?: boolean;
  mode?: number;
}

/**
 * Puts a new file over `file` as dpkg does: written beside it under NAME.dpkg-new, owner, mode and times set,
 * synced, renamed over it. dpkg sets the mtime that the package has; `keepMtime` gives it the old file's, as
 * happens when a package is rebuilt with clamped times.
 */
export function dpkgReplace(
  file: string,
  content: string | Uint8Array,
  options: ReplaceOptions = {},
): Promise<void> {
  return dpkgReplaceAll({ [file]: content }, options);
}

/**
 * The files of one package: all written first, then renamed one right after the other. Each rename may be announced to
 * the guests, which is an access: where nothing waits for the base to settle, half an update is followed at once.
 */
export async function dpkgReplaceAll(
  contents: Record<string, string | Uint8Array>,
  { keepMtime = false, mode }: ReplaceOptions = {},
): Promise<void> {
  const files = Object.keys(contents);
  for (const file of files) {
    const old = fs.statSync(file, { throwIfNoEntry: false });
    const fd = fs.openSync(`${file}.dpkg-new`, 'w', 0o600);
    try {
      fs.writeFileSync(fd, contents[file] ?? '');
      fs.fchownSync(fd, old?.uid ?? 0, old?.gid ?? 0);
      fs.fchmodSync(fd, mode ?? (old ? old.mode & 0o7777 : 0o644));
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    // touch keeps the nanoseconds; utimes of a Date does not.
    if (keepMtime && old) await runOk('touch', ['-r', file, `${file}.dpkg-new`]);
  }
  for (const file of files) fs.renameSync(`${file}.dpkg-new`, file);
  // Who does this again and again hears of what others have done meanwhile.
  await new Promise((resolve) => setImmediate(resolve));
}

/**
 * Waits until a copy of this file, or of any beneath this directory, says of itself when it was made: of one that is
 * made within the second of the base's last change it cannot be known that it is of that version, so it is looked at
 * once more, whenever that is.
 */
export async function ripen(file: string): Promise<void> {
  const beneath = fs.statSync(file).isDirectory() ? fs.readdirSync(file, { recursive: true }) : [];
  const changed = ['', ...beneath].map((name) => fs.lstatSync(path.join(file, String(name))).ctimeMs);
  const last = changed.reduce((one, other) => Math.max(one, other));
  const isRipe = () => Math.floor(Date.now() / 1000) * 1000 > last + 100;
  while (!isRipe()) await sleep(20);
}

/** As an editor with backupcopy=yes does: the same inode, truncated and written. */
export function editInPlace(file: string, content: string | Uint8Array): void {
  fs.writeFileSync(file, content);
}
