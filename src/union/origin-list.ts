// Origins as values: finding the one that holds for a path, and making a new one. Pure; used on both threads.
import type { Stat } from '../lib/stat.ts';
import { type Origin, pathHash } from '../versions/origin.ts';

/** The origin that holds for a path of the base; void are those that were carried here by a rename. */
export function originFor(list: readonly Origin[], basePath: string): Origin | null {
  const hash = pathHash(basePath);
  return list.find((origin) => origin.path === hash) ?? null;
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
