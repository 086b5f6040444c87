// What is mounted, and how to take it down even when it hangs. Reads /proc/self/mountinfo only: nothing here
// touches a mount in this process.
import * as fs from 'node:fs';
import { run, waitUntil } from './run.ts';

export interface MountEntry {
  mountPoint: string;
  type: string;
  source: string;
  /** Minor number of st_dev: the name of a FUSE connection under /sys/fs/fuse/connections. */
  minor: number;
}

export function mounts(): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of fs.readFileSync('/proc/self/mountinfo', 'latin1').split('\n')) {
    const fields = line.split(' ');
    const dash = fields.indexOf('-');
    if (dash < 0) continue;
    const minor = Number((fields[2] as string).split(':')[1]);
    const mountPoint = unescapeOctal(fields[4] as string);
    entries.push({
      mountPoint,
      type: fields[dash + 1] as string,
      source: unescapeOctal(fields[dash + 2] as string),
      minor,
    });
  }
  return entries;
}

/** mountinfo writes blanks, tabs, newlines and backslashes as \ooo; names are bytes. */
function unescapeOctal(text: string): string {
  const bytes = text.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
  return Buffer.from(bytes, 'latin1').toString();
}

/** The topmost one on that very path. */
export function mountAt(mountPoint: string): MountEntry | null {
  return mounts().findLast((entry) => entry.mountPoint === mountPoint) ?? null;
}

/** In the order in which they were mounted. */
export function mountsBeneath(dir: string): MountEntry[] {
  return mounts().filter((entry) => entry.mountPoint === dir || entry.mountPoint.startsWith(`${dir}/`));
}

/** Aborts a FUSE connection: every request in it ends with ECONNABORTED. */
export function abortConnection(minor: number): void {
  try {
    fs.writeFileSync(`/sys/fs/fuse/connections/${minor}/abort`, '1');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'EACCES') throw error;
  }
}

/** umount; if that fails or hangs, abort the connection and umount; else detach. Says which it took. */
export async function takeDown(mountPoint: string): Promise<'umount' | 'abort' | 'detach' | 'nothing'> {
  const entry = mountAt(mountPoint);
  if (entry === null) return 'nothing';
  const gone = () => mountAt(mountPoint) === null;
  for (let tries = 0; tries < 5; tries += 1) {
    const { timedOut } = await run('umount', [mountPoint], { timeout: 10_000 });
    if (gone()) return 'umount';
    if (timedOut) break;
    await waitUntil(gone, 200);
  }
  if (entry.type.startsWith('fuse')) {
    abortConnection(entry.minor);
    await run('umount', [mountPoint], { timeout: 5000 });
    if (gone()) return 'abort';
  }
  await run('umount', ['-l', mountPoint], { timeout: 5000 });
  return 'detach';
}
