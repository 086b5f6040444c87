// Whether the ids of this process are those of a user namespace, in which root is not the machine's.
import * as fs from 'node:fs';

/** The machine's own; its number is fixed (PROC_USER_INIT_INO of the kernel). */
const MACHINE = 'user:[4026531837]';

export function inUserNamespace(): boolean {
  return fs.readlinkSync('/proc/self/ns/user') !== MACHINE;
}

/** What an id of this process is in the namespace that made this one. */
export function outerUid(uid: number): number {
  for (const line of fs.readFileSync('/proc/self/uid_map', 'latin1').trim().split('\n')) {
    const [inside = 0, outside = 0, count = 0] = line.trim().split(/\s+/).map(Number);
    if (uid >= inside && uid < inside + count) return outside + uid - inside;
  }
  return uid;
}
