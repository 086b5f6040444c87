// The addon of the optional package fuse-native, which binds libfuse 2. Only its compiled part is used: its
// JavaScript throws where it should answer, and unmounts through a shell. The package carries the addon for x64
// alone, so nothing is compiled at its installation, and libfuse2 is needed only to run it.
import { createRequire } from 'node:module';
import * as path from 'node:path';
import { E } from '../../lib/errno.ts';
import { FsError, messageOf } from '../../lib/errors.ts';

/** In the order of their numbers in the addon. */
export const operations = [
  'init',
  'error',
  'access',
  'statfs',
  'fgetattr',
  'getattr',
  'flush',
  'fsync',
  'fsyncdir',
  'readdir',
  'truncate',
  'ftruncate',
  'utimens',
  'readlink',
  'chown',
  'chmod',
  'mknod',
  'setxattr',
  'getxattr',
  'listxattr',
  'removexattr',
  'open',
  'opendir',
  'read',
  'write',
  'release',
  'releasedir',
  'create',
  'unlink',
  'rename',
  'link',
  'symlink',
  'mkdir',
  'rmdir',
] as const;
export type Operation = (typeof operations)[number];

/** Called on the main thread; `thread` is the memory of the libfuse thread that waits for its signal. */
export type Callback = (thread: Buffer, number: number, ...args: never[]) => void;

export interface Addon {
  readonly sizeof_fuse_thread_t: number;
  /** Mounts, and starts libfuse's threads. `context` is `this` of all calls; `malloc` gives memory to keep. */
  fuse_native_mount(
    mountPoint: string,
    options: string,
    state: Buffer,
    context: object,
    malloc: (size: number) => Buffer,
    callbacks: readonly Callback[],
    implemented: Uint32Array,
  ): void;
  /** Answers: the thread goes on. Exactly once per callback, or its client waits for ever. */
  readonly [signal: `fuse_native_signal_${string}`]: (
    thread: Buffer,
    result: number,
    ...more: readonly unknown[]
  ) => void;
}

/** Throws FsError (ENODEV) with what is missing and how to come by it, in one line. */
export function loadAddon(): Addon {
  const require = createRequire(import.meta.url);
  let entry: string;
  try {
    entry = require.resolve('fuse-native');
  } catch (error) {
    throw new FsError(
      E.ENODEV,
      'the optional package fuse-native is not installed: npm ci --include=optional --ignore-scripts installs it',
      error,
    );
  }
  try {
    const load = createRequire(entry)('node-gyp-build') as (dir: string) => unknown;
    return load(path.dirname(entry)) as Addon;
  } catch (error) {
    throw new FsError(E.ENODEV, reason(messageOf(error)), error);
  }
}

function reason(message: string): string {
  const [line] = message.split('\n');
  if (message.includes('libfuse.so.2: cannot open'))
    return 'libfuse.so.2 is missing: install the package libfuse2 (apt-get install libfuse2)';
  if (message.startsWith('No native build'))
    return `fuse-native brings no addon for linux-${process.arch}: use --transport direct`;
  return `the addon of fuse-native cannot be loaded (${line}): reinstall libfuse2, or use --transport direct`;
}
