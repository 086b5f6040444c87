// A version of a base file, as it becomes the origin of what takes the name: its fingerprint and, where the
// content is not known yet, a descriptor to read it from.
import { newStat } from '../lib/stat.ts';
import { dup } from '../sys/file.ts';
import type { Origin } from '../versions/origin.ts';
import type { SeenSource } from './jobs.ts';
import { newOrigin } from './origin-list.ts';
import type { Seen } from './seen.ts';
import type { Union } from './union.ts';
import type { Witness } from './witness.ts';

export interface Version {
  origin: Origin;
  /** To read the content from, or of an object whose content is known; -1: there is none. It is the caller's. */
  fd: number;
  witness: Witness | null;
}

export function withoutFd(origin: Origin): Version {
  return { origin, fd: -1, witness: null };
}

/** Contents of versions that are remembered at most, and how many of the oldest go then: one by one a Map finds slowly. */
const MOST = 4096;
const GO_TOGETHER = 1024;

/** What a job has found out; '' is remembered too, or the request that asked would ask for ever. */
export function rememberContent(union: Union, fingerprint: string, content: string): void {
  const { contents } = union;
  contents.set(fingerprint, content);
  if (contents.size <= MOST) return;
  for (const oldest of contents.keys()) {
    contents.delete(oldest);
    if (contents.size <= MOST - GO_TOGETHER) return;
  }
}

/** A version that somebody has read through this mount. */
export function fromSeen(union: Union, basePath: string, seen: Seen): Version {
  const cached = union.contents.get(seen.fingerprint);
  const content = seen.content || (cached ?? '');
  const stat = { ...newStat(), mode: seen.mode, uid: seen.uid, gid: seen.gid };
  const origin = { ...newOrigin(basePath, stat, seen.fingerprint, content), xattrs: seen.xattrs };
  if (content !== '' || cached !== undefined || seen.fd < 0) return withoutFd(origin);
  return { origin, fd: Math.max(dup(seen.fd), -1), witness: seen.witness };
}

/** For a job that copies: the version that the caller has read; null: none is known. */
export function seenSource(union: Union, basePath: string, callerPid: number): SeenSource | null {
  const seen = union.seen.of(basePath, callerPid);
  if (seen === null) return null;
  const { origin, fd, witness } = fromSeen(union, '', seen);
  const { fingerprint, content, mode, uid, gid, xattrs } = origin;
  return { fingerprint, content, fd, witness, mode, uid, gid, xattrs };
}
