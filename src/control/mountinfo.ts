// What the kernel says is mounted in this mount namespace (proc_pid_mountinfo(5)). Reading it touches no
// mount, so it is safe beside a dead one. Paths are latin1.
import * as fs from 'node:fs';

export interface Mount {
  id: number;
  /** Of st_dev. */
  minor: number;
  mountPoint: string;
  /** e.g. ext4, overlay, fuse.kasane. */
  type: string;
  source: string;
  options: string[];
  superOptions: string[];
}

export const KASANE_TYPE = 'fuse.kasane';

export function parseMountInfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const dash = fields.indexOf('-', 6);
    if (dash < 0) continue;
    mounts.push({
      id: Number(fields[0]),
      minor: Number(fields[2]?.split(':')[1]),
      mountPoint: unescapeOctal(fields[4] ?? ''),
      type: unescapeOctal(fields[dash + 1] ?? ''),
      source: unescapeOctal(fields[dash + 2] ?? ''),
      options: (fields[5] ?? '').split(','),
      superOptions: splitOptions(fields[dash + 3] ?? ''),
    });
  }
  return mounts;
}

export function readMountInfo(): Mount[] {
  return parseMountInfo(fs.readFileSync('/proc/self/mountinfo', 'latin1'));
}

/** The mount that a path without symlinks lies on: the longest mount point above it, of several the last. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | null {
  let best: Mount | null = null;
  for (const mount of mounts) {
    if (!isWithin(path, mount.mountPoint)) continue;
    if (best === null || mount.mountPoint.length >= best.mountPoint.length) best = mount;
  }
  return best;
}

/** Whether `path` is `dir` or lies beneath it; both absolute and normal. */
export function isWithin(path: string, dir: string): boolean {
  return path === dir || dir === '/' || path.startsWith(`${dir}/`);
}

/** Value of `name=` among super options, or null. */
export function superOption(mount: Mount, name: string): string | null {
  for (const option of mount.superOptions) {
    if (option.startsWith(`${name}=`)) return option.slice(name.length + 1);
  }
  return null;
}

/** Overlayfs escapes a comma within a path with a backslash, and the kernel that backslash as \134. */
function splitOptions(field: string): string[] {
  const options: string[] = [];
  let current = '';
  const text = unescapeOctal(field);
  for (let i = 0; i < text.length; i++) {
    const c = text[i] as string;
    if (c === '\\' && i + 1 < text.length) {
      i += 1;
      current += text[i];
    } else if (c === ',') {
      options.push(current);
      current = '';
    } else {
      current += c;
    }
  }
  options.push(current);
  return options;
}

function unescapeOctal(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Minor number of the device of what is mounted there, topmost; -1: nothing. */
export function minorOf(mountPoint: string): number {
  return readMountInfo().findLast((mount) => mount.mountPoint === mountPoint)?.minor ?? -1;
}
