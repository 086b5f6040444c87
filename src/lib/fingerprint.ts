// What one statx tells of an object of the base. Two equal fingerprints mean "not changed", except where
// one was taken within the clock's granularity of the file's own times (git calls that racily clean).
import { hash128Text } from './hash.ts';
import { isLater, type Stat } from './stat.ts';

export interface Fingerprint {
  /** Identity of the branch it lies in, with that of what it has its content from, 32 hexadecimal digits. */
  layer: string;
  ino: number;
  size: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  mode: number;
  uid: number;
  gid: number;
  rdevMajor: number;
  rdevMinor: number;
}

/** What lies in two files is another version when either moves: the one is told with the layer of the other. */
function whereOf({ contentPrint }: Stat, layer: string): string {
  return contentPrint === '' ? layer : hash128Text(`${layer} ${contentPrint}`);
}

/** Puts into the stat of a copy of metadata alone what is to be said of its content, which lies in another file. */
export function putContent(stat: Stat, content: Stat, layer: string): void {
  stat.size = content.size;
  stat.blocks = content.blocks;
  if (isLater(content.ctimeSec, content.ctimeNsec, stat.ctimeSec, stat.ctimeNsec)) {
    stat.ctimeSec = content.ctimeSec;
    stat.ctimeNsec = content.ctimeNsec;
  }
  stat.contentPrint = hashFingerprint(fingerprintOf(content, layer));
}

export function fingerprintOf(stat: Stat, layer: string): Fingerprint {
  return {
    layer: whereOf(stat, layer),
    ino: stat.ino,
    size: stat.size,
    mtimeSec: stat.mtimeSec,
    mtimeNsec: stat.mtimeNsec,
    ctimeSec: stat.ctimeSec,
    ctimeNsec: stat.ctimeNsec,
    mode: stat.mode,
    uid: stat.uid,
    gid: stat.gid,
    rdevMajor: stat.rdevMajor,
    rdevMinor: stat.rdevMinor,
  };
}

/** Fixed text form, fields in the order of the interface: what is hashed, and what the index stores. */
export function fingerprintText(f: Fingerprint): string {
  return `${f.layer} ${f.ino} ${f.size} ${f.mtimeSec}.${f.mtimeNsec} ${f.ctimeSec}.${f.ctimeNsec} ${f.mode} ${f.uid} ${f.gid} ${f.rdevMajor}:${f.rdevMinor}`;
}

/** Whether `fingerprintOf` the object in that layer would be this one. */
export function isOf(f: Fingerprint, stat: Stat, layer: string): boolean {
  return (
    f.ino === stat.ino &&
    f.size === stat.size &&
    f.mtimeSec === stat.mtimeSec &&
    f.mtimeNsec === stat.mtimeNsec &&
    f.ctimeSec === stat.ctimeSec &&
    f.ctimeNsec === stat.ctimeNsec &&
    f.mode === stat.mode &&
    f.uid === stat.uid &&
    f.gid === stat.gid &&
    f.rdevMajor === stat.rdevMajor &&
    f.rdevMinor === stat.rdevMinor &&
    f.layer === whereOf(stat, layer)
  );
}

/** Whether what is looked at again, in the same layer, is the version that it was. */
export function isUnchanged(before: Stat, after: Stat): boolean {
  return isOf(fingerprintOf(before, ''), after, '');
}

/** 32 hexadecimal digits. */
export function hashFingerprint(f: Fingerprint): string {
  return hash128Text(fingerprintText(f));
}
