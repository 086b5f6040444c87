// Updates of a base as the real tools make them. They write to the base's own directory, never through a mount.
// Synchronous, as all that writes to a base must be: what is open while this process forks, the child has open, too,
// until it runs another program. Whoever looks meanwhile finds a file that somebody may still write to, and does not
// judge it. A call on this thread never meets a fork of this thread; one on a thread of Node's pool does.
import * as fs from 'node:fs';
import * as path from 'node:path';
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
  const old = fs.statSync(file, { throwIfNoEntry: false });
  const temporary = `${file}.dpkg-new`;
  const fd = fs.openSync(temporary, 'w', 0o600);
  try {
    fs.writeFileSync(fd, content);
    fs.fchownSync(fd, old?.uid ?? 0, old?.gid ?? 0);
    fs.fchmodSync(fd, options.mode ?? (old ? old.mode & 0o7777 : 0o644));
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
  // touch keeps the nanoseconds; utimes of a Date does not.
  if (options.keepMtime && old) await runOk('touch', ['-r', file, temporary]);
  fs.renameSync(temporary, file);
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
