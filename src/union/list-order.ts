// The order of a listing. The offset of an entry is a function of its name, not of an open: 52 bits of hash, so that NFS
// servers and seekdir in a new open find their place, whatever was added or removed meanwhile.

export interface ListEntry {
  name: string;
  /** d_ino, equal to st_ino. */
  ino: number;
  /** d_type: file type bits shifted down by 12. */
  type: number;
  /** Above 2; an answer that ends with this entry is continued from here. */
  offset: number;
}

/** Offsets 1 and 2 are those of `.` and `..`. */
const FIRST_OFFSET = 3;
/** From so many entries on buckets pay. */
const MANY = 10_000;
/** One for each value of an offset's upper bits, and what FIRST_OFFSET carries over. */
const BUCKETS = 2 ** 20 + 1;

/** FNV-1a over the bytes of the name, from two starting points; 52 bits, so that a safe integer holds them. */
export function nameOffset(name: string): number {
  let a = 0x811c9dc5;
  let b = 0x01000193;
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i);
    a = Math.imul(a ^ c, 0x01000193);
    b = Math.imul(b ^ c, 0x85ebca6b) ^ (b >>> 13);
  }
  const high = (a ^ (a >>> 15)) & 0xfffff;
  const low = (b ^ (b >>> 16)) >>> 0;
  return high * 2 ** 32 + low + FIRST_OFFSET;
}

/** Sorted by offset, and by name where offsets are equal. */
export function sortEntries(entries: ListEntry[]): ListEntry[] {
  return entries.length < MANY ? entries.sort(compare) : sortMany(entries);
}

/** Hashes are spread evenly: in buckets by their upper bits, a million entries are nearly in order. */
function sortMany(entries: readonly ListEntry[]): ListEntry[] {
  const ends = new Uint32Array(BUCKETS);
  for (const entry of entries) ends[bucketOf(entry)] = (ends[bucketOf(entry)] as number) + 1;
  for (let i = 1; i < BUCKETS; i++) ends[i] = (ends[i] as number) + (ends[i - 1] as number);
  const sorted = new Array<ListEntry>(entries.length);
  for (const entry of entries) {
    const bucket = bucketOf(entry);
    const at = (ends[bucket] as number) - 1;
    ends[bucket] = at;
    sorted[at] = entry;
  }
  for (let i = 1; i < sorted.length; i++) {
    const entry = sorted[i] as ListEntry;
    let at = i;
    for (; at > 0 && compare(sorted[at - 1] as ListEntry, entry) > 0; at--)
      sorted[at] = sorted[at - 1] as ListEntry;
    sorted[at] = entry;
  }
  return sorted;
}

function bucketOf({ offset }: ListEntry): number {
  return Math.floor(offset / 2 ** 32);
}

function compare(a: ListEntry, b: ListEntry): number {
  return a.offset - b.offset || (a.name < b.name ? -1 : 1);
}

/** Index of the first entry whose offset is above `offset`. */
export function indexAfter(entries: readonly ListEntry[], offset: number): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((entries[middle] as ListEntry).offset > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}
