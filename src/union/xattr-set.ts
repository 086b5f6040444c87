// The extended attributes of an object as one value: hashed into origins, kept as an ancestor of their own.
import { hash128 } from '../lib/hash.ts';

export type XattrSet = ReadonlyMap<string, Buffer>;

/** Canonical bytes of a set; empty for the empty set. */
export function encodeXattrs(set: XattrSet): Buffer {
  if (set.size === 0) return Buffer.alloc(0);
  const sorted = [...set].sort(([a], [b]) => (a < b ? -1 : 1));
  return Buffer.from(
    JSON.stringify(sorted.map(([name, value]) => [name, value.toString('base64')])),
    'latin1',
  );
}

export function xattrPairs(set: XattrSet): [string, string][] {
  return [...set]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => [name, value.toString('base64')]);
}

/** The set of encoded bytes; null if they are none. */
export function decodeXattrs(bytes: Uint8Array): Map<string, Buffer> | null {
  if (bytes.length === 0) return new Map();
  try {
    const pairs = JSON.parse(Buffer.from(bytes).toString('latin1')) as [string, string][];
    return new Map(pairs.map(([name, value]) => [name, Buffer.from(value, 'base64')]));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return null;
    throw error;
  }
}

/** 16 hexadecimal digits, '' for the empty set: as it stands in an origin. */
export function hashXattrs(set: XattrSet): string {
  return set.size === 0 ? '' : hash128(encodeXattrs(set)).slice(0, 16);
}
