// The rules of conformance.ts on a mount, in a directory for each state that an object of the union can be in. The
// base is the same afterwards.
import * as fs from 'node:fs';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { conformance, copyUpAll, notByFuse, populate } from '../conformance/conformance.ts';
import { type Mount, notifyBy, startMount } from '../lib/kasane.ts';
import { missing, testNeeding } from '../lib/needs.ts';
import { makeTemp } from '../lib/temp.ts';
import { hashTree } from '../lib/tree.ts';

const needs = { root: true, fuse: true };

interface State {
  name: string;
  /** Its directory beneath the mount; what the rules find in it is there in the base. */
  dir: string;
  /** The base has nothing of it. */
  absent?: true;
  /** What is done to the directory in the mount before that is taken down and made again; then after it. */
  earlier?: (dir: string, mount: Mount) => Promise<unknown>;
  now?: (dir: string, mount: Mount) => Promise<unknown>;
  /** What does not hold beyond what FUSE forbids: semantics.md says why. */
  broken?: Readonly<Record<string, RegExp>>;
}

/** Of a large file whose bytes lie in the base: who has it open keeps an object of its own when somebody writes. */
const openInBase = { 'who reads a large file and watches it is told what others write': /'MODIFY'/ };

/** A change of times leaves the content in the base; whoever opens a file for writing has it brought. */
async function copyUpContent(dir: string, mount: Mount): Promise<void> {
  await copyUpAll(dir);
  await mount.sh(`find "$1" -type f -exec sh -c 'for f; do true >> "$f"; done' _ {} +`, [dir]);
}

const states: State[] = [
  {
    name: 'a new directory',
    dir: 'new',
    absent: true,
    now: async (dir) => {
      fs.mkdirSync(dir);
      await populate(dir);
    },
  },
  { name: 'a directory of the base', dir: 'born', broken: openInBase },
  { name: 'a directory that was copied up with all content', dir: 'copied', now: copyUpContent },
  {
    name: 'a directory of which only metadata were copied up, before a remount',
    dir: 'remounted',
    earlier: (dir) => copyUpAll(dir),
    broken: openInBase,
  },
  {
    name: 'an opaque directory, which hides as much of the base',
    dir: 'opaque',
    now: async (dir, mount) => {
      await mount.sh('rm -r "$1"; mkdir "$1"', [dir]);
      await populate(dir);
    },
  },
];

describe('on a mount', () => {
  let dir: string;
  let mount: Mount;
  let before: string;

  beforeAll(async () => {
    if (missing(needs) !== null) return;
    dir = (await makeTemp('disk')).dir;
    for (const name of ['base', 'overlay', 'mnt']) fs.mkdirSync(`${dir}/${name}`);
    for (const state of states) {
      if (state.absent) continue;
      fs.mkdirSync(`${dir}/base/${state.dir}`);
      await populate(`${dir}/base/${state.dir}`);
    }
    before = await hashTree(`${dir}/base`);
    // Others have inotify (long/unprivileged.test.ts).
    const options = ['-o', 'suid,dev', ...notifyBy('fanotify')];
    const layers = { base: `${dir}/base`, overlay: `${dir}/overlay`, mountPoint: `${dir}/mnt` };
    mount = await startMount({ ...layers, options });
    for (const state of states) await state.earlier?.(`${dir}/mnt/${state.dir}`, mount);
    await mount.umount();
    mount = await startMount({ ...layers, options });
    for (const state of states) await state.now?.(`${dir}/mnt/${state.dir}`, mount);
  });

  for (const { name, dir: own, broken } of states) {
    conformance(name, () => `${dir}/mnt/${own}`, needs, 'short', { ...notByFuse, ...broken });
  }

  testNeeding(needs, 'cloning, flags and freezing are refused, and a syncfs succeeds', async () => {
    const calls = [
      'cp --reflink=always data clone',
      'lsattr data',
      'chattr +i data',
      'fsfreeze --freeze .',
      'sync --file-system .',
    ];
    const each = calls.map((call) => `if ${call} > /dev/null 2>&1; then echo done; else echo refused; fi`);
    const results = await mount.sh(`mkdir calls; cd calls; echo text > data\n${each.join('\n')}`);
    const refused = calls.map((call) => (call.startsWith('sync') ? 'done' : 'refused'));
    expect(results.trimEnd().split('\n')).toEqual(refused);
    // It did not reach us.
    expect(await mount.read('.kasane/metrics')).not.toContain('SYNCFS');
  });

  testNeeding(needs, 'how direct I/O must be aligned, and where extents lie, is not told', async () => {
    const ask = `
import ctypes, errno, fcntl
DIOALIGN, FIEMAP = 0x2000, 0xC020660B
answer = ctypes.create_string_buffer(256)
print(ctypes.CDLL(None).statx(-100, b"asked", 0, DIOALIGN, answer), int.from_bytes(answer.raw[:4], "little") & DIOALIGN)
try: fcntl.ioctl(open("asked"), FIEMAP, bytearray(32))
except OSError as e: print(errno.errorcode[e.errno])
`;
    expect(await mount.sh('echo text > asked; python3 -c "$1"; rm asked', [ask])).toBe('0 0\nENOTSUP\n');
  });

  testNeeding(needs, 'the base is as it was, and the log has no error', async () => {
    expect(await hashTree(`${dir}/base`)).toBe(before);
    expect(mount.log()).not.toMatch(/\berror\b/i);
  });

  afterAll(() => mount?.umount());
});
