// Origins as values: finding the one that holds for a path, and making a new one. Pure; used on both threads.
import type { Stat } from '../lib/stat.ts';
import { type Origin, pathHash } from '../versions/origin.ts';

/** The origin that holds for a path of the base; void are those that were carried here by a rename. */
export function originFor(list: readonly Origin[], basePath: string): Origin | null {
  if (list.length === 0) return null;
  const hash = pathHash(basePath);
  return list.find((origin) => origin.path === hash) ?? null;
}

/** The number that a copy shows by its origins; 0: its own. */
export function numberIn(list: readonly Origin[]): number {
  return list.find(({ ino }) => ino !== 0)?.ino ?? 0;
}

/** An origin from what the base has; `content` is '' while nobody has read it. */
export function newOrigin(basePath: string, stat: Stat, fingerprint: string, content: string): Origin {
  return {
    path: pathHash(basePath),
    mode: stat.mode,
    uid: stat.uid,
    gid: stat.gid,
    ino: 0,
    content,
    fingerprint,
    xattrs: '',
    taken: Math.floor(Date.now() / 1000),
    torn: false,
    pin: null,
  };
}

/** The same with another number and content. Field by field: a spread takes many times as long. */
export function originWith(origin: Origin, ino: number, content: string): Origin {
  const { path, mode, uid, gid, fingerprint, xattrs, taken, torn, pin } = origin;
  return { path, mode, uid, gid, ino, content, fingerprint, xattrs, taken, torn, pin };
}

/** Stands for a base that has nothing, where a pin refuses just that. */
const ABSENT = '0'.repeat(32);

/** A pin for a version of the base, as an origin holds it; `fingerprint` '' : the base has nothing. */
export function pinOf(fingerprint: string, content: string): NonNullable<Origin['pin']> {
  return { fingerprint: fingerprint || ABSENT, content };
}

/** Whether the base is at the version that was refused. */
export function isPinned(pin: NonNullable<Origin['pin']>, fingerprint: string): boolean {
  return pin.fingerprint === (fingerprint || ABSENT);
}

/** Clock granularity of file systems, with room. */
const RACY_MS = 20;

/** The base may have changed once more, unseen, after its fingerprint was taken at `taken` (seconds). */
export function isRacy(base: Stat, taken: number): boolean {
  return base.ctimeSec * 1000 + base.ctimeNsec / 1e6 + RACY_MS >= taken * 1000;
}
