// Locks: GETLK, SETLK, SETLKW, and FLUSH, by which a process gives its ranges up when it closes a file. They come
// only where a node can be divided, for it is then that the kernel cannot keep them (union/locks.ts).
import { readers, writers } from '../fuse/codec.ts';
import { FUSE_LK_FLOCK } from '../fuse/constants.ts';
import { HEADER, PAYLOAD } from '../fuse/protocol.ts';
import { type FuseRequest, type Handlers, PARK } from '../fuse/request.ts';
import { E } from '../lib/errno.ts';
import { F_UNLCK } from '../sys/constants.ts';
import { awaitLock, dropOwner, grantWaiting, setLock, testLock } from '../union/locks.ts';
import type { Lock } from '../union/node.ts';
import { isControl } from './control-files.ts';
import type { Front } from './front.ts';

export function lockHandlers(front: Front): Handlers {
  return {
    GETLK: (r) =>
      isControl(r.nodeId) ? answerLock(r, free) : withLock(front, r, (lock) => getLock(r, lock)),
    SETLK: (r) =>
      withLock(front, r, (lock) => {
        const error = setLock(lock.handle.node, lock);
        grantWaiting(front.union, lock.handle.node);
        return error;
      }),
    SETLKW: (r) => withLock(front, r, (lock) => waitForLock(front, lock)),
    FLUSH: (r) => flush(front, r),
  };
}

type Range = Pick<Lock, 'start' | 'end' | 'type' | 'pid'>;

const free: Range = { start: 0, end: 0, type: F_UNLCK, pid: 0 };

function ownerOf(low: number, high: number): string {
  return `${high} ${low}`;
}

function withLock(front: Front, r: FuseRequest, work: (lock: Lock) => number): number {
  // Nobody needs one on a control file, and who asks is to believe that it has it.
  if (isControl(r.nodeId)) return 0;
  const { fh, ownerLow, ownerHigh, start, end, type, pid, lkFlags } = readers.lk_in(r.view, HEADER);
  const handle = front.union.table.handle(fh);
  if (!handle) return -E.EBADF;
  const flock = (lkFlags & FUSE_LK_FLOCK) !== 0;
  return work({ flock, owner: ownerOf(ownerLow, ownerHigh), handle, type, start, end, pid });
}

function getLock(r: FuseRequest, lock: Lock): number {
  return answerLock(r, testLock(lock.handle.node, lock) ?? { ...lock, type: F_UNLCK });
}

function answerLock(r: FuseRequest, { start, end, type, pid }: Range): number {
  return writers.lk_out(r.replyView, PAYLOAD, { start, end, type, pid });
}

function waitForLock(front: Front, lock: Lock): number {
  const { server, union, lockWaiters } = front;
  const result = awaitLock(union, lock.handle.node, lock, () => {
    for (const [token, one] of lockWaiters) {
      if (one.lock !== lock) continue;
      lockWaiters.delete(token);
      server.answer(token, 0);
    }
  });
  if (typeof result === 'number') {
    grantWaiting(union, lock.handle.node);
    return result;
  }
  lockWaiters.set(server.park(), result);
  // flock(2) may have let go of what others wait for.
  grantWaiting(union, lock.handle.node);
  return PARK;
}

function flush(front: Front, r: FuseRequest): number {
  // Once is enough where the kernel keeps the locks itself: it asks no more.
  if (!front.server.negotiated?.uses.POSIX_LOCKS) return -E.ENOSYS;
  const { fh, lockOwnerLow, lockOwnerHigh } = readers.flush_in(r.view, HEADER);
  const handle = isControl(r.nodeId) ? undefined : front.union.table.handle(fh);
  if (handle) dropOwner(front.union, handle.node, ownerOf(lockOwnerLow, lockOwnerHigh));
  return 0;
}
