// Which operations the random differential test does, and how many of each have succeeded.
import fc from 'fast-check';

/** How often each kind comes, relative to the others. */
const weights: Record<string, number> = {
  create: 9,
  write: 8,
  append: 4,
  truncate: 3,
  allocate: 2,
  read: 6,
  copyRange: 1,
  mkdir: 5,
  rmdir: 3,
  unlink: 7,
  symlink: 3,
  mknod: 2,
  link: 4,
  rename: 10,
  chmod: 4,
  chown: 3,
  utimes: 4,
  setxattr: 3,
  removexattr: 2,
  acl: 2,
  getxattrs: 2,
  readdir: 4,
  stat: 6,
  readlink: 1,
  umask: 1,
  openFile: 5,
  openDirectory: 2,
  readHandle: 4,
  writeHandle: 4,
  statHandle: 4,
  truncateHandle: 1,
  allocateHandle: 1,
  changeHandle: 3,
  seekHandle: 1,
  closeFile: 2,
  temporary: 2,
  inDirectory: 3,
  atPosition: 2,
  mapFile: 3,
  storeMap: 2,
  lockHandle: 4,
  holes: 2,
  refused: 1,
  /** With two clients only. */
  shared: 8,
};

/** Those that are one change of the union: after a crash in the midst of one it has happened, or has not. */
const atomic = new Set([
  ...[
    'append',
    'truncate',
    'mkdir',
    'rmdir',
    'unlink',
    'symlink',
    'mknod',
    'link',
    'rename',
    'chmod',
    'chown',
  ],
  ...['utimes', 'setxattr', 'removexattr', 'acl', 'stat', 'readdir', 'umask', 'openFile', 'readHandle'],
]);

export const isAtomic = ([kind]: Operation): boolean => atomic.has(kind);

/** The number seeds all choices. */
export type Operation = [kind: string, seed: number];

/** The same for the same seed, as many as asked for. */
export function operationsOf(seed: number, count: number, clients: 1 | 2): Operation[] {
  const kinds = Object.entries(weights).filter(([kind]) => clients === 2 || kind !== 'shared');
  const operation: fc.Arbitrary<Operation> = fc.tuple(
    fc.oneof(...kinds.map(([kind, weight]) => ({ weight, arbitrary: fc.constant(kind) }))),
    fc.noBias(fc.integer({ min: 0, max: 0x7fffffff })),
  );
  const list = fc.array(operation, { minLength: count, maxLength: count, size: 'max' });
  return fc.sample(list, { seed, numRuns: 1 })[0] ?? [];
}

export type Mix = Record<string, { ok: number; failed: number }>;

export interface Total {
  ok: number;
  failed: number;
  /** Differences that are meant: mv's copy where rename gives EXDEV. */
  allowed: number;
  /** Times that the daemon died in the midst of an operation. */
  cuts: number;
  mix: Mix;
}

export const newTotal = (): Total => ({ ok: 0, failed: 0, allowed: 0, cuts: 0, mix: {} });

export function add(total: Total, more: { mix: Mix; allowed: number; cut: string | null }): void {
  total.allowed += more.allowed;
  if (more.cut !== null) total.cuts += 1;
  for (const [kind, { ok, failed }] of Object.entries(more.mix)) {
    total.mix[kind] ??= { ok: 0, failed: 0 };
    total.mix[kind].ok += ok;
    total.mix[kind].failed += failed;
    total.ok += ok;
    total.failed += failed;
  }
}

export function sumUp(total: Total, more: Total): void {
  add(total, { ...more, cut: null });
  total.cuts += more.cuts;
}

export function summary({ ok, failed, allowed, cuts, mix }: Total): string {
  const kinds = Object.keys(weights).map((kind) => `${kind} ${mix[kind]?.ok ?? 0}/${mix[kind]?.failed ?? 0}`);
  const rare = `${allowed} times mv's copy for EXDEV, ${cuts} cut off by a crash`;
  return `${ok} succeeded, ${failed} failed alike, ${rare}\n  ${kinds.join(', ')}`;
}

/**
 * Fewer operations that still fail: leaves out ever smaller pieces as long as time allows (ddmin). Operations make
 * their choices by what is there, so a rest may fail otherwise than the whole; any failure counts.
 */
export async function shrink<T>(
  items: readonly T[],
  fails: (items: readonly T[]) => Promise<boolean>,
  milliseconds: number,
): Promise<readonly T[]> {
  const end = Date.now() + milliseconds;
  let best = items;
  let size = Math.ceil(best.length / 2);
  while (best.length > 1 && Date.now() < end) {
    let shrunk = false;
    // What comes last is near the failure: leave out from the front.
    for (let at = 0; at < best.length && Date.now() < end; ) {
      const rest = [...best.slice(0, at), ...best.slice(at + size)];
      if (rest.length > 0 && (await fails(rest))) {
        best = rest;
        shrunk = true;
      } else {
        at += size;
      }
    }
    if (size === 1 && !shrunk) break;
    if (!shrunk || size > best.length / 2) size = Math.max(1, Math.floor(size / 2));
  }
  return best;
}
