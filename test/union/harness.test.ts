// The harness itself, on a plain directory and on kernel overlayfs: what it says must be right before it is
// used to judge Kasane.
import { spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { dpkgReplace } from '../lib/base-update.ts';
import { type ImageType, imageNeeds, makeLoopImage } from '../lib/images.ts';
import { mountAt, takeDown } from '../lib/mounts.ts';
import { testNeeding } from '../lib/needs.ts';
import { asUser, isAlive, run, runOk, sh, waitUntil } from '../lib/run.ts';
import { withTemp } from '../lib/temp.ts';
import { diffTrees, hashTree, readTree, withBaseUntouched } from '../lib/tree.ts';

describe('run', () => {
  test('ends a child and its children at the time limit', async () => {
    const result = await run('bash', ['-c', 'sleep 60 & echo $!; wait'], { timeout: 2500 });
    expect(result.timedOut).toBe(true);
    expect(result.code).toBe(null);
    expect(isAlive(Number(result.stdout))).toBe(false);
  });

  test('gives exit code, both outputs and bytes as they are', async () => {
    const result = await run('bash', ['-c', 'printf "\\377"; echo no >&2; exit 3']);
    expect([result.code, result.out, result.stderr]).toEqual([3, Buffer.from([0xff]), 'no\n']);
    await expect(sh('exit 7')).rejects.toThrow('ended with 7');
  });

  testNeeding({ root: true, commands: ['setpriv'] }, 'runs as another user without groups', async () => {
    const result = await asUser(1234, ['id']);
    expect(result.stdout).toBe('uid=1234 gid=1234 groups=1234\n');
  });
});

describe('agent', () => {
  test('keeps a file open over its replacement and reports errnos', () =>
    withTemp('disk', async (dir) => {
      await fs.writeFile(`${dir}/f`, 'old');
      const agent = startAgent();
      const fd = await agent.call<number>('openSync', `${dir}/f`, 'r');
      await dpkgReplace(`${dir}/f`, 'new');
      expect((await agent.call<Buffer>('readWhole', fd)).toString()).toBe('old');
      await expect(agent.call('lstatSync', `${dir}/none`)).rejects.toMatchObject({ code: 'ENOENT' });
      await agent.stop();
      await expect(agent.call('closeSync', fd)).rejects.toMatchObject({ code: expect.any(String) });
    }));
});

describe('trees', () => {
  test('a tree is the same as itself, and each kind of change shows', () =>
    withTemp('disk', async (dir) => {
      const base = `${dir}/base`;
      await sh('mkdir -p "$1"/d; cd "$1"; echo a > f; ln f g; ln -s f l; mkfifo p; echo b > "d/x y"', [base]);
      await sh('cp -a "$1" "$2"', [base, `${dir}/copy`]);
      const before = await readTree(base);
      expect(diffTrees(before, await readTree(`${dir}/copy`))).toEqual([]);
      const changes = {
        content: 'printf c | dd of=f conv=notrunc status=none; touch -d @1 f',
        mode: 'chmod 600 f',
        mtime: 'touch -d @5 f',
        'a new name': 'touch new',
        'another target': 'ln -sfn g l',
        'one link less': 'rm g',
      };
      for (const [what, script] of Object.entries(changes)) {
        await sh(`rm -rf "$2"; cp -a "$1" "$2"; cd "$2"; ${script}`, [base, `${dir}/copy`]);
        expect(diffTrees(before, await readTree(`${dir}/copy`)).length, what).toBeGreaterThan(0);
      }
    }));

  testNeeding({ commands: ['setfattr', 'getfattr'] }, 'an xattr shows, and names are bytes', () =>
    withTemp('disk', async (dir) => {
      await sh('cd "$1"; touch f "$2"', [dir, 'ü\n\\x']);
      const before = await hashTree(dir);
      expect(await hashTree(dir)).toBe(before);
      await runOk('setfattr', ['-n', 'user.k', '-v', 'v', `${dir}/ü\n\\x`]);
      expect(await hashTree(dir)).not.toBe(before);
      const name = Buffer.from('ü\n\\x').toString('latin1');
      expect((await readTree(dir)).get(name)?.xattrs).toEqual(['user.k=0x76']);
    }),
  );

  test('a write to the base is found out', () =>
    withTemp('disk', async (dir) => {
      await fs.writeFile(`${dir}/f`, 'a');
      await expect(withBaseUntouched(dir, async () => 5)).resolves.toBe(5);
      await expect(withBaseUntouched(dir, () => fs.appendFile(`${dir}/f`, 'b'))).rejects.toThrow(
        'written to',
      );
    }));
});

describe('an update as dpkg makes it', () => {
  test('replaces the inode, keeps owner and mode, and the mtime to the nanosecond if wanted', () =>
    withTemp('disk', async (dir) => {
      const file = `${dir}/f`;
      await sh('echo a > "$1"; chmod 640 "$1"', [file]);
      const old = await fs.stat(file, { bigint: true });
      await dpkgReplace(file, 'b\n', { keepMtime: true });
      const now = await fs.stat(file, { bigint: true });
      expect([now.mtimeNs, now.mode]).toEqual([old.mtimeNs, old.mode]);
      expect(now.ino).not.toBe(old.ino);
      await dpkgReplace(file, 'c\n');
      expect((await fs.stat(file, { bigint: true })).mtimeNs).not.toBe(old.mtimeNs);
    }));
});

describe('mounts', () => {
  testNeeding(
    { root: true, filesystems: ['overlay'] },
    'are found, taken down, and never left over',
    async () => {
      let left = '';
      await withTemp('memory', async (dir) => {
        left = `${dir}/m n`;
        await sh('cd "$1"; mkdir l u w "m n"; echo base > l/f', [dir]);
        const options = `lowerdir=${dir}/l,upperdir=${dir}/u,workdir=${dir}/w`;
        const mount = () => runOk('mount', ['-t', 'overlay', 'overlay', '-o', options, left]);
        await mount();
        expect(mountAt(left)?.type).toBe('overlay');
        await withBaseUntouched(`${dir}/l`, () => sh('echo guest > "$1/f"', [left]));
        expect(await takeDown(left)).toBe('umount');
        expect(await takeDown(left)).toBe('nothing');
        await mount();
      });
      expect(mountAt(left)).toBe(null);
    },
  );

  testNeeding({ root: true, filesystems: ['overlay'] }, 'that are busy are detached', () =>
    withTemp('memory', async (dir) => {
      await sh('cd "$1"; mkdir m; mount -t tmpfs none m', [dir]);
      const agent = startAgent({ cwd: `${dir}/m` });
      await agent.call('cwd');
      expect(await takeDown(`${dir}/m`)).toBe('detach');
      await agent.stop();
    }),
  );
});

describe('a hung file system', () => {
  const needs = { root: true, fuse: true, commands: ['fuse-overlayfs'] };
  testNeeding(needs, 'hangs neither a command nor its end', () =>
    withTemp('disk', async (dir) => {
      await sh('cd "$1"; mkdir l u w m; echo x > l/f', [dir]);
      const options = `lowerdir=${dir}/l,upperdir=${dir}/u,workdir=${dir}/w`;
      const daemon = spawn('fuse-overlayfs', ['-f', '-o', options, `${dir}/m`], { stdio: 'ignore' });
      try {
        expect(await waitUntil(() => mountAt(`${dir}/m`) !== null)).toBe(true);
        expect(await sh('cat "$1"/m/f', [dir])).toBe('x\n');
        daemon.kill('SIGSTOP');
        const start = Date.now();
        expect(await run('ls', [`${dir}/m/none`], { timeout: 300 })).toMatchObject({
          timedOut: true,
          code: null,
        });
        expect(await takeDown(`${dir}/m`)).toMatch(/umount|abort/);
        expect(Date.now() - start).toBeLessThan(45_000);
      } finally {
        daemon.kill('SIGKILL');
      }
    }),
  );
});

describe('loop images', () => {
  for (const type of ['ext4', 'xfs', 'btrfs', 'erofs'] satisfies ImageType[]) {
    testNeeding(imageNeeds(type), `${type} can be made, mounted and mounted again`, () =>
      withTemp('disk', async (dir) => {
        await sh('mkdir "$1"/from; echo x > "$1"/from/f', [dir]);
        const image = await makeLoopImage(dir, { fs: type, from: `${dir}/from` });
        expect(mountAt(image.dir)?.type).toBe(type);
        if (type !== 'erofs') await sh('echo x > "$1"/f', [image.dir]);
        await image.umount();
        expect(mountAt(image.dir)).toBe(null);
        await image.mount();
        expect(await sh('cat "$1"/f', [image.dir])).toBe('x\n');
      }),
    );
  }
});
