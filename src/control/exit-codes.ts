// Exit codes of the command, and which errno leads to which. A number once given is never used for
// something else.
import { E } from '../lib/errno.ts';

export const EXIT = {
  /** Done, clean, no differences. */
  ok: 0,
  /** Conflicts exist, `diff` is not empty, `reconcile` or `merge-file` left conflicts. */
  conflicts: 1,
  /** Unknown verb or option; a path that is missing, no directory, identical or nested; `--file` missing. */
  usage: 2,
  /** On no mount, daemon dead, no /dev/fuse, no fusermount3. */
  unreachable: 3,
  /**
   * In use, no xattrs, read-only, newer format, damage, busy, an id unknown or closed, not there yet; what `reconcile`
   * failed to do, or had no room for.
   */
  refused: 4,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** What is not named here is refused (4). */
const exitByErrno: ReadonlyMap<number, ExitCode> = new Map<number, ExitCode>([
  [E.EINVAL, EXIT.usage],
  [E.ENOENT, EXIT.usage],
  [E.ENOTDIR, EXIT.usage],
  [E.ENAMETOOLONG, EXIT.usage],
  [E.ELOOP, EXIT.usage],
  [E.ENOTCONN, EXIT.unreachable],
  [E.ECONNREFUSED, EXIT.unreachable],
  [E.ECONNRESET, EXIT.unreachable],
  [E.EPIPE, EXIT.unreachable],
  [E.ESHUTDOWN, EXIT.unreachable],
  [E.ETIMEDOUT, EXIT.unreachable],
  [E.ENODEV, EXIT.unreachable],
  [E.ENXIO, EXIT.unreachable],
]);

/** `errno` positive or negative. */
export function exitCodeOf(errno: number): ExitCode {
  return exitByErrno.get(Math.abs(errno)) ?? EXIT.refused;
}
