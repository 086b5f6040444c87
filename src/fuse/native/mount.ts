// Mounting and unmounting for libfuse 2: its options as text, the device that it has opened, and how to see that
// the mount is over, which the addon does not tell.
import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import { E } from '../../lib/errno.ts';
import { FsError } from '../../lib/errors.ts';
import { toDisplay } from '../../lib/names.ts';
import type { DeviceOptions } from '../device.ts';

/** The most that libfuse 2 reads or writes at a time. */
const MAX_IO = 128 * 1024;
/** Of the addon, with the NUL. */
const LONGEST_TEXT = 1024;
const SUBTYPE = 'kasane';

/** A path as the addon wants it; one that is no UTF-8, or too long for it, is refused. */
export function textOf(name: string): string {
  const text = Buffer.from(name, 'latin1').toString('utf8');
  if (Buffer.from(text, 'utf8').toString('latin1') !== name)
    throw new FsError(E.EINVAL, `${toDisplay(name)} is not UTF-8, which --transport fuse-native needs`);
  if (name.length >= LONGEST_TEXT)
    throw new FsError(E.EINVAL, `${toDisplay(name)} is too long for --transport fuse-native`);
  return text;
}

/**
 * All timeouts are zero, so that each access asks. use_ino: hard links show one number. atomic_o_trunc: a truncating
 * open copies nothing up. big_writes: 128 KiB and not 4 at a time.
 */
export function optionText(options: DeviceOptions): string {
  const words = [
    `fsname=${options.fsname.replace(/[\\,]/g, '\\$&')}`,
    `subtype=${SUBTYPE}`,
    'default_permissions',
    'use_ino',
    'atomic_o_trunc',
    'big_writes',
    `max_read=${MAX_IO}`,
    `max_write=${MAX_IO}`,
    'entry_timeout=0',
    'attr_timeout=0',
    'negative_timeout=0',
    options.suid ? 'suid' : 'nosuid',
    options.dev ? 'dev' : 'nodev',
    ...(options.readOnly ? ['ro'] : []),
    ...(options.exec ? [] : ['noexec']),
    ...(options.atime ? [] : ['noatime']),
    ...(options.allowOther ? ['allow_other'] : []),
  ];
  return textOf(`-o${words.join(',')}`);
}

/** Descriptors of this process that are the FUSE device. */
export function deviceDescriptors(): number[] {
  const found: number[] = [];
  for (const name of fs.readdirSync('/proc/self/fd')) {
    try {
      if (fs.readlinkSync(`/proc/self/fd/${name}`) === '/dev/fuse') found.push(Number(name));
    } catch (error) {
      // That of the listing itself, or another thread's.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return found;
}

/**
 * 0 or a negative errno. By a program: what is written through a map has to come here before the mount goes, so this
 * thread must not wait for that.
 */
export function unmountByProgram(mountPoint: string, lazy: boolean): Promise<number> {
  const target = textOf(mountPoint);
  const isRoot = process.geteuid?.() === 0;
  const [program, ...args] = isRoot
    ? ['umount', '-i', ...(lazy ? ['-l'] : []), '--', target]
    : ['fusermount', '-u', '-q', ...(lazy ? ['-z'] : []), '--', target];
  return new Promise((resolve) => {
    const env = { ...process.env, LC_ALL: 'C' };
    execFile(program as string, args, { env }, (error) => {
      if (error === null) resolve(0);
      else resolve((error as NodeJS.ErrnoException).code === 'ENOENT' ? -E.ENODEV : -E.EBUSY);
    });
  });
}
