// Tells a file of the base from all others, also from one that gets its inode number later: as links/ has it in names, and
// as what is known of such files is found by it.
import type { Stat } from '../lib/stat.ts';

export interface BaseFileKey {
  /** Of the layer's tree. */
  identity: string;
  layer: number;
  ino: number;
  btimeSec: number;
  btimeNsec: number;
}

export type Birth = Pick<Stat, 'btimeSec' | 'btimeNsec'>;

export function keyText({ identity, layer, ino, btimeSec, btimeNsec }: BaseFileKey): string {
  return `${identity}-${layer}-${ino}-${btimeSec}.${btimeNsec}`;
}

const pattern = /^([0-9a-f]*)-(\d+)-(\d+)-(-?\d+)\.(\d+)$/;

/** What such a text says; null: it is none. */
export function parseKey(text: string): BaseFileKey | null {
  const [, identity, ...numbers] = pattern.exec(text) ?? [];
  if (identity === undefined) return null;
  const [layer, ino, btimeSec, btimeNsec] = numbers.map(Number) as [number, number, number, number];
  return { identity, layer, ino, btimeSec, btimeNsec };
}

/** The one of a file, among all of its inode number: that may have been several files', or several layers'. */
export function ofFile<K extends BaseFileKey>(
  among: readonly K[] | undefined,
  identity: string,
  layer: number,
  { btimeSec, btimeNsec }: Birth,
): K | undefined {
  for (const key of among ?? []) {
    if (
      key.layer === layer &&
      key.identity === identity &&
      key.btimeSec === btimeSec &&
      key.btimeNsec === btimeNsec
    )
      return key;
  }
  return undefined;
}
