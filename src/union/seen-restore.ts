// What processes that have outlived the last daemon had read: known again, with a descriptor of each version that the
// base still has, for its bytes are the ancestor should the base move before they write.
import { openBeneath } from '../branch/base.ts';
import { fingerprintOf, hashFingerprint } from '../lib/fingerprint.ts';
import { newStat } from '../lib/stat.ts';
import { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } from '../sys/constants.ts';
import { close } from '../sys/file.ts';
import { fstat } from '../sys/stat.ts';
import type { SeenRecord } from '../versions/seen-log.ts';
import type { Union } from './union.ts';
import { type Witness, witnessOf } from './witness.ts';

export function restoreSeen(union: Union, records: readonly SeenRecord[]): void {
  for (const record of records) {
    // The second reader of a version needs no other descriptor.
    const known = union.seen.has(record.path, record.fingerprint);
    const { fd, witness } = known ? gone : openVersion(union, record);
    union.seen.restore(record, fd, witness);
  }
}

const gone: { fd: number; witness: Witness | null } = { fd: -1, witness: null };

function openVersion(union: Union, { path, fingerprint }: SeenRecord): typeof gone {
  const stat = newStat();
  for (const { rootFd, identity } of union.layers) {
    const fd = openBeneath(rootFd, path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0) continue;
    const same = fstat(fd, stat) === 0 && hashFingerprint(fingerprintOf(stat, identity)) === fingerprint;
    if (same) return { fd, witness: witnessOf(stat) };
    close(fd);
  }
  return gone;
}
