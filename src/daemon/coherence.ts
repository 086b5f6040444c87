// How a mount stays coherent with its base, chosen from what the base lies on where nobody has said.
import { remoteType } from '../branch/remote.ts';
import type { MountOptions } from '../control/mount-options.ts';
import type { Keeping } from '../union/kernel-view.ts';

/** The kernel keeps things so long at most, for what raises no event, such as a store through a shared map. */
const NOTIFY_SECONDS = 60;

export interface Coherence {
  mode: 'notify' | 'check' | 'ttl';
  keeping: Keeping;
  /** How long the kernel may keep names and attributes. */
  seconds: number;
  /** Why it is this one, where that is worth a word. */
  note: string | null;
}

const check = (note: string | null): Coherence => ({ mode: 'check', keeping: 'none', seconds: 0, note });
const notify = (note: string | null): Coherence => ({
  mode: 'notify',
  keeping: 'watched',
  seconds: NOTIFY_SECONDS,
  note,
});

/** `typeOf` tells the name of a remote file system, and null for a local one. */
export function chooseCoherence(
  options: Pick<MountOptions, 'coherence' | 'bases' | 'export'> & Partial<Pick<MountOptions, 'transport'>>,
  typeOf: (path: string) => string | null = remoteType,
): Coherence {
  const wish = options.coherence;
  if (wish.mode === 'check') return check(null);
  if (options.transport === 'fuse-native')
    return check('coherence is check: libfuse 2 has no way to tell of changes');
  if (wish.mode === 'ttl') return { mode: 'ttl', keeping: 'timed', seconds: wish.seconds, note: null };
  if (options.export !== 'off') {
    return check('coherence is check: clients of an exported mount come by handles, not by names');
  }
  const remote = options.bases.map(typeOf).find((type) => type !== null) ?? null;
  if (remote === null) return notify(null);
  if (wish.mode === 'auto')
    return check(`coherence is check: the base lies on ${remote}, which tells of no changes`);
  return notify(
    `the base lies on ${remote}: what others change there shows after up to ${NOTIFY_SECONDS} seconds`,
  );
}

/** `errno`: why inotify cannot be had. */
export const withoutEvents = (errno: string): Coherence =>
  check(`coherence is check: nothing can be watched (${errno}): raise fs.inotify.max_user_instances`);

/** `errno`: why events cannot be read. */
export const withoutHearing = (errno: string): Coherence =>
  check(`coherence is check: changes of the base cannot be heard any more (${errno})`);

/** Should the daemon be killed just when it tells the kernel of something, then nobody could free its clients. */
export const withoutWatchdog = (): Coherence =>
  check('coherence is check: mount fusectl on /sys/fs/fuse/connections, or ask for notify, to have notify');

/** Several have died, one after the other. */
export const withoutNotifier = (): Coherence =>
  check('coherence is check: what tells the kernel of changes has failed again and again (see the log)');

/** The kernel cannot expire a name without detaching what is mounted on it. */
export const tooOld = (kernelMinor: number): Coherence =>
  check(`coherence is check: this kernel (FUSE 7.${kernelMinor}) cannot expire names, which 7.38 can`);
