// The second front end: the same union by way of libfuse 2 and fuse-native. What a guest does every day, what an
// update of the base comes to, and how it begins and ends. The rules of conformance: long/fuse-native.test.ts.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { describe, expect } from 'vitest';
import { ripen } from '../lib/base-update.ts';
import {
  kasane,
  type Layers,
  type Mount,
  mainFile,
  repository,
  withLayers,
  withMount,
} from '../lib/kasane.ts';
import { mountAt } from '../lib/mounts.ts';
import { mountTest, testNeeding } from '../lib/needs.ts';
import { run, runOk, waitUntil } from '../lib/run.ts';
import { type Guest, text, withGuest } from '../lib/versioning.ts';

const options = ['--transport', 'fuse-native'];

const withNative = (body: (mount: Mount, layers: Layers) => Promise<void>) =>
  withLayers((layers) => {
    fs.writeFileSync(`${layers.base}/a`, 'base\n');
    fs.mkdirSync(`${layers.base}/d`);
    return withMount({ ...layers, options }, (mount) => body(mount, layers));
  });

const python = (mount: Mount, script: string) => runOk('python3', ['-c', script], { cwd: mount.dir });

describe('a guest', () => {
  mountTest('works, and status and the mount say by what', () =>
    withNative(async (mount, { base, overlay }) => {
      await mount.sh(`
        echo more >> a; mv a d/b; ln d/b c; ln -s d/b l; mkdir new; echo x > new/f; chmod 600 new/f
        test "$(cat l)" = "$(printf 'base\\nmore')"; test "$(stat -c %i c)" = "$(stat -c %i d/b)"
        rm -r new; mkfifo p; truncate -s 3 c; cat d/b; cat .kasane/status >/dev/null; ls -lR > /dev/null
      `);
      expect(await mount.read('d/b')).toBe('bas');
      expect(fs.readFileSync(`${base}/a`, 'utf8')).toBe('base\n');
      expect(fs.readFileSync(`${overlay}/c`, 'utf8')).toBe('bas');
      const { stdout } = await mount.kasane(['status', '--json', mount.dir]);
      const status = JSON.parse(stdout) as { options: Record<string, string>; notes: string[] };
      expect(status.options.transport).toBe('fuse-native');
      expect(status.notes.join('\n')).toMatch(/who asks is not known/);
      expect(mount.log()).toMatch(/who asks is not known/);
    }),
  );

  mountTest('sets both times, mtime other than atime, which the addon itself confuses', () =>
    withNative(async (mount) => {
      await python(mount, 'import os; os.utime("a", (1e9 + 0.25, 1.5e9 + 0.5))');
      expect(await mount.sh('stat -c "%X %Y" a')).toBe('1000000000 1500000000\n');
      await python(mount, 'import os; os.utime("a", (-1000, 7))');
      expect(await mount.sh('stat -c "%X %Y" a')).toBe('0 7\n');
    }),
  );

  mountTest('asks for attributes with too little room, and is told so', () =>
    withNative(async (mount) => {
      await python(
        mount,
        `
import ctypes, os
os.setxattr("a", "user.long-enough", b"value")
libc = ctypes.CDLL(None, use_errno=True)
room = ctypes.create_string_buffer(4)
assert libc.listxattr(b"a", room, 4) == -1 and ctypes.get_errno() == 34
assert libc.getxattr(b"a", b"user.long-enough", room, 2) == -1 and ctypes.get_errno() == 34
assert libc.listxattr(b"a", None, 0) == 17 and libc.getxattr(b"a", b"user.long-enough", None, 0) == 5
`,
      );
      expect(await mount.read('a')).toBe('base\n');
    }),
  );

  mountTest('cannot use a name that is no UTF-8, and finds no other file by it', () =>
    withNative(async (mount, { base }) => {
      fs.writeFileSync(Buffer.from(`${base}/caf\xe9`, 'latin1'), 'latin1');
      await python(
        mount,
        `
import os
assert any("caf" in name for name in os.listdir("."))
for name in (b"caf\\xe9", b"caf\\xe8"):
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT):
        try: os.open(name, flags); raise SystemExit("opened")
        except OSError as error: assert error.errno == 84, error
`,
      );
    }),
  );

  mountTest('goes on while another one’s copy-up is under way', () =>
    withNative(async (mount, { base }) => {
      await runOk('truncate', ['-s', '200M', `${base}/big`]);
      await runOk('fallocate', ['-l', '40M', `${base}/big`]);
      await mount.sh(
        'echo x >> big & for i in $(seq 20); do stat a > /dev/null; done; wait; test "$(tail -c 2 big)" = x',
      );
      expect(fs.statSync(`${base}/big`).size).toBe(200 * 2 ** 20);
    }),
  );
});

describe('an update of the base', () => {
  const FILE = 'etc/a.conf';
  const withFile = (body: (guest: Guest) => Promise<void>) =>
    withGuest({ files: { [FILE]: text() }, options }, body);
  const conflict = async (guest: Guest) => {
    await guest.mount.write(FILE, text({ 10: 'guest' }));
    await guest.update(FILE, text({ 10: 'base' }));
    expect(await guest.read(FILE)).toBe(text({ 10: 'guest' }));
    expect(await guest.conflictList()).toEqual([`${FILE} text`]);
  };

  mountTest('is merged with what the guest has', () =>
    withFile(async (guest) => {
      await ripen(`${guest.base}/${FILE}`);
      await guest.mount.write(FILE, text({ 15: 'guest' }));
      await guest.update(FILE, text({ 3: 'base' }));
      expect(await guest.read(FILE)).toBe(text({ 3: 'base', 15: 'guest' }));
      expect(await guest.events(FILE)).toEqual(['copy-up', 'merged']);
    }),
  );

  mountTest('is a conflict that is resolved by the command line', () =>
    withFile(async (guest) => {
      await conflict(guest);
      await runOk(process.execPath, [mainFile, 'resolve', guest.at(FILE), '--take', 'base']);
      expect(await guest.read(FILE)).toBe(text({ 10: 'base' }));
    }),
  );

  mountTest('is a conflict that is resolved through the control directory', () =>
    withFile(async (guest) => {
      await conflict(guest);
      expect(await guest.mount.read('.kasane/conflict/1/base')).toBe(text({ 10: 'base' }));
      await guest.mount.sh('echo resolve 1@1 base > .kasane/control');
      expect(await guest.mount.read('.kasane/control.last')).toMatch(/ resolve 0 /);
      expect(await guest.read(FILE)).toBe(text({ 10: 'base' }));
      const failed = await run('bash', ['-c', 'echo nonsense > .kasane/control'], { cwd: guest.mnt });
      expect(failed.stderr).toMatch(/Invalid argument/);
    }),
  );
});

describe('the end', () => {
  mountTest('by umount comes after what was written through a map, by SIGTERM too', () =>
    withLayers(async (layers) => {
      fs.writeFileSync(`${layers.base}/a`, 'base\n');
      const script = `
import mmap, os
fd = os.open("a", os.O_RDWR)
map = mmap.mmap(fd, 5); map[0:4] = b"mapd"
`;
      await withMount({ ...layers, options }, async (mount) => {
        await python(mount, script);
        expect(await mount.umount()).toBe(0);
      });
      expect(fs.readFileSync(`${layers.overlay}/a`, 'utf8')).toBe('mapd\n');
      await withMount({ ...layers, options }, async (mount) => {
        await python(mount, script.replace('mapd', 'MAPD'));
        process.kill(mount.pid, 'SIGTERM');
        expect(await mount.ended).toBe(0);
        expect(mountAt(layers.mnt)).toBe(null);
      });
      expect(fs.readFileSync(`${layers.overlay}/a`, 'utf8')).toBe('MAPD\n');
    }),
  );

  mountTest('by kill -9 leaves all that was done, and a mount that is made anew', () =>
    withLayers(async (layers) => {
      fs.writeFileSync(`${layers.base}/a`, 'base\n');
      const args = ['--base', layers.base, '--overlay', layers.overlay, ...options, layers.mnt];
      await withMount({ ...layers, options }, async (mount) => {
        await mount.sh('echo more >> a; echo new > b');
        process.kill(mount.pid, 'SIGKILL');
        await mount.ended;
        const again = await kasane(['mount', ...args]);
        expect(again).toMatchObject({ code: 0 });
        expect(again.stderr).toMatch(/held by a dead Kasane: detached/);
        expect(await mount.read('a')).toBe('base\nmore\n');
        expect(await mount.read('b')).toBe('new\n');
        expect(await kasane(['umount', layers.mnt])).toMatchObject({ code: 0 });
        expect(await waitUntil(() => mountAt(layers.mnt) === null)).toBe(true);
      });
    }),
  );
});

describe('where something is missing', () => {
  const mountArgs = (layers: Layers) =>
    ['mount', '--base', layers.base, '--overlay', layers.overlay, ...options, layers.mnt] as const;

  // The library is hidden by a whiteout, in a mount namespace of its own.
  testNeeding(
    { root: true, fuse: true, filesystems: ['overlay'] },
    'libfuse2, one line says what to install',
    () =>
      withLayers(async (layers) => {
        const libraries = await runOk('ldconfig', ['-p']);
        const library = /libfuse\.so\.2 .*=> (\S+)/.exec(libraries)?.[1];
        expect(library).toBeDefined();
        const dir = path.dirname(library as string);
        for (const name of ['upper', 'work']) fs.mkdirSync(`${layers.dir}/${name}`);
        await runOk('mknod', [`${layers.dir}/upper/libfuse.so.2`, 'c', '0', '0']);
        const hide = `mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$1"; shift 2; exec "$@"`;
        const command = [process.execPath, mainFile, ...mountArgs(layers)];
        const result = await run('unshare', ['-m', 'bash', '-ec', hide, 'bash', dir, layers.dir, ...command]);
        expect(result).toMatchObject({
          code: 3,
          stderr:
            'kasane: mount: libfuse.so.2 is missing: install the package libfuse2 (apt-get install libfuse2)\n',
        });
        expect(mountAt(layers.mnt)).toBe(null);
      }),
  );

  mountTest('the package, one line says how to come by it', () =>
    withLayers(async (layers) => {
      const copy = `${layers.dir}/copy`;
      fs.mkdirSync(`${copy}/node_modules`, { recursive: true });
      fs.cpSync(`${repository}/dist`, `${copy}/dist`, { recursive: true });
      fs.copyFileSync(`${repository}/package.json`, `${copy}/package.json`);
      for (const name of fs.readdirSync(`${repository}/node_modules`)) {
        if (name === 'fuse-native') continue;
        fs.symlinkSync(`${repository}/node_modules/${name}`, `${copy}/node_modules/${name}`);
      }
      const result = await run(process.execPath, [`${copy}/dist/main.js`, ...mountArgs(layers)]);
      expect(result.code).toBe(3);
      expect(result.stderr).toMatch(
        /^kasane: mount: the optional package fuse-native is not installed: npm ci .*\n$/,
      );
    }),
  );
});
