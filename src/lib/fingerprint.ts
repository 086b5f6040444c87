// What one statx tells of an object of the base. Two equal fingerprints mean "not changed", except where
// one was taken within the clock's granularity of the file's own times (git calls that racily clean).
import { hash128 } from './hash.ts';
import type { Stat } from './stat.ts';

export interface Fingerprint {
  /** Identity of the branch it lies in, 32 hexadecimal digits. */
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

export function fingerprintOf(stat: Stat, layer: string): Fingerprint {
  return {
    layer,
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

export function sameFingerprint(a: Fingerprint, b: Fingerprint): boolean {
  return (
    a.ino === b.ino &&
    a.size === b.size &&
    a.mtimeSec === b.mtimeSec &&
    a.mtimeNsec === b.mtimeNsec &&
    a.ctimeSec === b.ctimeSec &&
    a.ctimeNsec === b.ctimeNsec &&
    a.mode === b.mode &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    a.rdevMajor === b.rdevMajor &&
    a.rdevMinor === b.rdevMinor &&
    a.layer === b.layer
  );
}

/** 32 hexadecimal digits. */
export function hashFingerprint(f: Fingerprint): string {
  return hash128(Buffer.from(fingerprintText(f), 'latin1'));
}
