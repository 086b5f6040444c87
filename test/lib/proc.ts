// Looking at other processes, whose threads and descriptors may be gone before we come to them.
import * as fs from 'node:fs';

/** What a look into /proc gives, or something else where what is looked at is gone meanwhile. */
export function unlessGone<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return otherwise;
    throw error;
  }
}

/** What the descriptors of a process lead to. Of all threads: some have descriptors of their own. */
export function descriptorsOf(pid: number): string[] {
  const found: string[] = [];
  for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
    const dir = `/proc/${pid}/task/${task}/fd`;
    for (const fd of unlessGone(() => fs.readdirSync(dir), []))
      found.push(unlessGone(() => fs.readlinkSync(`${dir}/${fd}`), ''));
  }
  return found;
}
