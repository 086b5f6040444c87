// File handles as an NFS server uses them: taken by name, opened again whatever has happened meanwhile. And a
// mount with --export that can be taken through restarts, crashes and copies of its overlay.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { call } from './calls.ts';
import { type Layers, type Mount, startMount, withLayers } from './kasane.ts';
import { runOk, sleep } from './run.ts';
import { BaseWatch, type Guest, guestOf, writeFiles } from './versioning.ts';

/** What a handle opens; or the name of the errno. */
export interface Opened {
  error?: string;
  ino: number;
  mode: number;
  size: number;
  nlink: number;
  content?: string;
  names?: string[];
}

/** Handles of names beneath a mount; throws where one cannot be had. */
export async function takeHandles(mnt: string, names: readonly string[]): Promise<string[]> {
  const paths = names.map((name) => path.join(mnt, name));
  const taken = await call<{ handle?: string; error?: string }[]>('take', paths, 120_000);
  return taken.map(({ handle, error }, i) => {
    if (handle === undefined) throw new Error(`no handle of ${names[i]}: ${error}`);
    return handle;
  });
}

/** `contents`: with what files hold, and with the names in directories. */
export function openHandles(
  mnt: string,
  handles: readonly string[],
  options: { contents?: boolean; timeout?: number } = {},
): Promise<Opened[]> {
  return call('open', { mnt, handles, contents: options.contents ?? true }, options.timeout);
}

/** Appends by a handle; the name of the errno, or undefined. */
export async function appendByHandle(mnt: string, handle: string, content: string) {
  return (await call<{ error?: string }>('append', { mnt, handle, content })).error;
}

/** The kernel forgets every inode that nobody holds: its dentries go at a remount. */
export async function forgetAll(mnt: string): Promise<void> {
  await runOk('mount', ['-i', '-o', 'remount', mnt]);
  // It tells the daemon by messages that nobody answers.
  await sleep(50);
}

/** Handles by the name that they were taken of. */
export type Handles = Record<string, string>;

export interface ExportedGuest extends Guest {
  layers: Layers;
  take: (...names: string[]) => Promise<Handles>;
  /** Content of what each handle opens: of a file its bytes, of a directory its names, else its errno or type. */
  openAll: (handles: Handles) => Promise<Record<string, string>>;
  forget: () => Promise<void>;
  /** Unmounts, does what is to be done meanwhile, and mounts again. */
  restart: (meanwhile?: () => Promise<unknown> | unknown) => Promise<void>;
  /** The same after kill -9. */
  crash: (meanwhile?: () => Promise<unknown> | unknown) => Promise<void>;
}

export interface ExportSpec {
  files: Record<string, string | null>;
  options?: readonly string[];
  where?: 'disk' | 'memory';
}

/** A guest on a mount with --export=nfs4 (or whatever the options say). */
export function withExport<T>(spec: ExportSpec, body: (guest: ExportedGuest) => Promise<T>): Promise<T> {
  return withLayers(async (layers) => {
    writeFiles(layers.base, spec.files);
    const watch = new BaseWatch(layers.base);
    const options = spec.options ?? ['--export=nfs4'];
    const start = () => startMount({ ...layers, mountPoint: layers.mnt, options });
    let mount: Mount = await start();
    const guest: ExportedGuest = {
      ...guestOf(mount, watch, layers.dir),
      layers,
      take: async (...names) => {
        const handles = await takeHandles(layers.mnt, names);
        return Object.fromEntries(names.map((name, i) => [name, handles[i] as string]));
      },
      openAll: async (handles) => {
        const found = await openHandles(layers.mnt, Object.values(handles));
        return Object.fromEntries(Object.keys(handles).map((name, i) => [name, shown(found[i] as Opened)]));
      },
      forget: () => forgetAll(layers.mnt),
      restart: async (meanwhile) => {
        await mount.umount();
        await meanwhile?.();
        mount = await start();
        Object.assign(guest, guestOf(mount, watch, layers.dir));
      },
      crash: async (meanwhile) => {
        await mount.kill();
        await meanwhile?.();
        mount = await start();
        Object.assign(guest, guestOf(mount, watch, layers.dir));
      },
    };
    try {
      const result = await body(guest);
      watch.check();
      return result;
    } catch (error) {
      if (error instanceof Error) error.message += `\n--- log of the daemon\n${mount.log().slice(-2000)}`;
      throw error;
    } finally {
      await mount.umount();
    }
  }, spec.where ?? 'disk');
}

function shown({ error, mode, content, names }: Opened): string {
  if (error !== undefined) return error;
  if (names !== undefined) return names.join(' ');
  if (content !== undefined) return content;
  return `type ${((mode & 0o170000) >> 12).toString(8)}`;
}

/** A copy of an overlay as it lies on the disk. */
export async function copyOverlay(from: string, to: string): Promise<void> {
  fs.rmSync(to, { recursive: true, force: true });
  await runOk('cp', ['-a', from, to]);
}
