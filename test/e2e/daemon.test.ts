import * as fs from 'node:fs';
import { describe, expect } from 'vitest';
import { inUserNamespace } from '../../src/lib/user-namespace.ts';
import { startAgent } from '../lib/agent.ts';
import { ripen } from '../lib/base-update.ts';
import {
  daemonOf,
  kasane,
  type Layers,
  mainFile,
  startMount,
  stopBackground,
  withLayers,
  withMount,
} from '../lib/kasane.ts';
import { mountAt, takeDown } from '../lib/mounts.ts';
import { mountTest, testNeeding } from '../lib/needs.ts';
import { isAlive, run, runOk, sh, waitUntil } from '../lib/run.ts';
import { withBaseUntouched } from '../lib/tree.ts';

const words = (pid: number) => fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);

/** The line of the mount in mountinfo. */
const mountLine = (mnt: string) =>
  fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((line) => line.split(' ')[4] === mnt) ?? '';

const simple = (layers: Layers) => fs.writeFileSync(`${layers.base}/f`, 'base\n');

mountTest('the command line names base, overlay and mount point, and status names the process', () =>
  withLayers(async (layers) => {
    simple(layers);
    const { base, overlay, mnt } = layers;
    expect(await kasane(['mount', '--base', base, '--overlay', overlay, mnt])).toMatchObject({ code: 0 });
    try {
      const pid = daemonOf(mnt) as number;
      expect(words(pid).slice(-5)).toEqual(['--base', base, '--overlay', overlay, mnt]);
      expect(await runOk('ps', ['-o', 'args=', '-p', String(pid)])).toContain(`--overlay ${overlay} ${mnt}`);
      expect(JSON.parse((await kasane(['status', '--json', mnt])).stdout).pid).toBe(pid);
      expect(await runOk('cat', [`${mnt}/.kasane/status`])).toContain(`\npid ${pid}\n`);
      const listed = JSON.parse((await kasane(['list', '--json'])).stdout) as { mountPoint: string }[];
      expect(listed.find((one) => one.mountPoint === mnt)).toMatchObject({ overlay, pid, state: 'alive' });
    } finally {
      await stopBackground(mnt);
    }
    expect((await kasane(['list'])).stdout).not.toContain(mnt);
  }),
);

mountTest(
  'while requests follow each other closely processors stay awake, and a kill lets them go',
  (context) =>
    withLayers(async (layers) => {
      simple(layers);
      const options = ['--coherence', 'check', '--cpu-latency', 'low'];
      await withMount({ ...layers, options }, async (mount) => {
        const status = JSON.parse((await kasane(['status', '--json', mount.dir])).stdout);
        const device = '/dev/cpu_dma_latency';
        if ((await run('bash', ['-c', '[ -e "$1" ] && : 3> "$1"', 'bash', device])).code !== 0) {
          expect(status.options).toMatchObject({ 'cpu-latency': 'off' });
          expect(status.notes).toContainEqual(expect.stringContaining(`${device} cannot be opened (`));
          return;
        }
        expect(status.options).toMatchObject({ 'cpu-latency': 'low' });
        // Microseconds: the least of what anybody asks for.
        const asked = () => {
          const fd = fs.openSync(device, 'r');
          const bytes = Buffer.alloc(4);
          fs.readSync(fd, bytes);
          fs.closeSync(fd);
          return bytes.readInt32LE();
        };
        if (!(await waitUntil(() => asked() > 0))) context.skip('something else keeps processors awake');
        const busy = sh('while [ -e "$1" ]; do :; done 2>/dev/null', [`${mount.dir}/f`]);
        expect(await waitUntil(() => asked() === 0)).toBe(true);
        await mount.kill();
        await busy;
        expect(await waitUntil(() => asked() > 0)).toBe(true);
      });
    }),
);

describe('it ends', () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    mountTest(`with 0 and nothing mounted at ${signal}, and what was written is kept`, () =>
      withLayers(async (layers) => {
        simple(layers);
        await withBaseUntouched(layers.base, async () => {
          const mount = await startMount({ ...layers, mountPoint: layers.mnt });
          await mount.sh('echo guest >> f; echo guest > new');
          process.kill(mount.pid, signal);
          expect(await mount.ended).toBe(0);
          expect(mountAt(layers.mnt)).toBe(null);
          expect(mount.log()).toContain(`${signal}: unmounting`);
          await withMount(layers, async (again) =>
            expect(await again.sh('cat f new')).toBe('base\nguest\nguest\n'),
          );
        });
        expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0 });
      }),
    );
  }

  mountTest('at SIGTERM as soon as the last file is closed, if the mount is busy', () =>
    withLayers(async (layers) => {
      simple(layers);
      const mount = await startMount({ ...layers, mountPoint: layers.mnt });
      const agent = startAgent();
      const fd = await agent.call<number>('openSync', `${layers.mnt}/f`, 'r+');
      process.kill(mount.pid, 'SIGTERM');
      expect(await waitUntil(() => mountAt(layers.mnt) === null)).toBe(true);
      await agent.call('writeSync', fd, 'late\n');
      expect(isAlive(mount.pid)).toBe(true);
      await agent.call('closeSync', fd);
      expect(await mount.ended).toBe(0);
      await agent.stop();
      expect(fs.readFileSync(`${layers.overlay}/f`, 'utf8')).toBe('late\n');
    }),
  );

  for (const [who, command] of [
    ['umount(8)', ['umount']],
    ['a lazy umount', ['umount', '-l']],
    ['fusermount3', ['fusermount3', '-u']],
    ['kasane umount', [process.execPath, mainFile, 'umount']],
  ] as const) {
    mountTest(`with 0 after ${who}`, () =>
      withLayers(async (layers) => {
        simple(layers);
        const mount = await startMount({ ...layers, mountPoint: layers.mnt });
        await mount.sh('echo guest >> f');
        const [program, ...args] = command;
        expect(await run(program, [...args, layers.mnt])).toMatchObject({ code: 0, stderr: '' });
        expect(await mount.ended).toBe(0);
        expect(mount.log()).toMatch(/unmounted\n$/);
        expect(mountAt(layers.mnt)).toBe(null);
      }),
    );
  }
});

mountTest('a mistake of its own costs a request an error, and nobody else anything', () =>
  withLayers(async (layers) => {
    for (const name of ['a', 'b', 'c']) fs.writeFileSync(`${layers.base}/${name}`, 'base\n');
    // Removing: while the request is handled. Copying up: while the result of a job is taken.
    for (const [step, script, text] of [
      ['whiteout-before-rename:1:throw', 'rm a', 'base\n'],
      ['copy-up-before-rename:1:throw', 'echo guest >> b', 'base\nguest\n'],
    ] as const) {
      await withMount({ ...layers, env: { KASANE_FAIL: step } }, async (mount) => {
        const failed = await run('bash', ['-c', script], { cwd: layers.mnt });
        expect(failed.stderr).toMatch(/Input\/output error/);
        expect(await mount.sh('cat c; echo x > d; cat d')).toBe('base\nx\n');
        expect(await waitUntil(() => / error serve: .*fail point/.test(mount.log()))).toBe(true);
        // The second time it works.
        await mount.sh(script);
        if (script === 'rm a') expect((await run('cat', [`${layers.mnt}/a`])).code).toBe(1);
        else expect(await mount.read('b')).toBe(text);
        expect(await mount.umount()).toBe(0);
      });
    }
    expect(await kasane(['check', layers.overlay])).toMatchObject({ code: 0 });
  }),
);

mountTest('--debug traces each request in a line that can be read', () =>
  withLayers(async (layers) => {
    simple(layers);
    await withMount({ ...layers, options: ['--debug'] }, async (mount) => {
      // Other files are written to past the daemon, and read without asking it.
      await mount.sh(
        'cat f .kasane/status; echo guest > new; chmod 4755 new; echo GUEST 1<> new; mv new newer; cat none || true',
      );
      for (const line of [
        /LOOKUP node=1 uid=0 gid=0 pid=\d+ "f"/,
        /OPEN node=\d+ /,
        /READ node=\d+ .*size=\d+/,
        /CREATE node=1 .*"new"/,
        /RELEASE node=\d+ /,
        /RENAME2? node=1 .*"new".*"newer"/,
        /SETATTR node=\d+ /,
        /LOOKUP node=1 .*"none"/,
      ]) {
        expect(await waitUntil(() => line.test(mount.log())), `${line}`).toBe(true);
      }
      expect(mount.log()).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z debug serve: /m);
    });
  }),
);

mountTest('by default it mounts nosuid and nodev, and otherwise where that is asked for', () =>
  withLayers(async (layers) => {
    fs.mkdirSync(`${layers.base}/d`);
    await withMount(layers, async (mount) => {
      expect(mountLine(layers.mnt)).toMatch(/ rw,nosuid,nodev,[^ ]* .*fuse\.kasane kasane /);
      expect(mountLine(layers.mnt)).toMatch(/default_permissions,allow_other/);
      await mount.sh('mknod null c 1 3');
      expect((await run('cat', [`${layers.mnt}/null`])).stderr).toContain('Permission denied');
    });
    await withMount({ ...layers, options: ['-o', 'suid,dev,noexec,noatime,fsname=web1'] }, async (mount) => {
      expect(mountLine(layers.mnt)).toMatch(/ rw,noexec,noatime .*fuse\.kasane web1 /);
      await mount.sh('cat null');
    });
    await withMount({ ...layers, options: ['-o', 'ro'] }, async (mount) => {
      expect(mountLine(layers.mnt)).toMatch(/ ro,nosuid,nodev/);
      expect((await run('touch', [`${layers.mnt}/x`])).stderr).toContain('Read-only file system');
      expect(await mount.sh('ls')).toBe('d\nnull\n');
    });
  }),
);

testNeeding(
  { root: true, fuse: true, commands: ['mount.fuse3', 'unshare'] },
  'mount -t fuse.kasane mounts, as from fstab, and umount ends the daemon that stays behind',
  () =>
    withLayers(async (layers) => {
      simple(layers);
      const { base, overlay, mnt, dir } = layers;
      const bin = `${dir}/bin`;
      fs.mkdirSync(bin);
      fs.writeFileSync(`${bin}/kasane`, `#!/bin/sh\nexec ${process.execPath} ${mainFile} "$@"\n`, {
        mode: 0o755,
      });
      // mount.fuse3 looks in the usual places only, so one of them is another directory for the time being.
      const script = `
        mount --bind "$1" /usr/local/bin
        mount -t fuse.kasane -o "base=$2,overlay=$3,settle=1,noatime,fsname=guest1" guest1 "$4"
        findmnt -n -o FSTYPE,SOURCE,OPTIONS "$4"
        cat "$4/f" "$4/.kasane/status"
        pid=$(sed -n 's/^pid //p' "$4/.kasane/status")
        umount "$4"
        for i in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
        ! kill -0 "$pid" 2>/dev/null
        ! mount -t fuse.kasane -o "base=$2" x "$4"
      `;
      const enter = ['--mount', '--propagation', 'private', 'bash', '-euc', script, 'bash'];
      const done = await run('unshare', [...enter, bin, base, overlay, mnt]);
      expect({ code: done.code, err: done.stderr }).toEqual({
        code: 0,
        err: expect.stringMatching(/^kasane: mount: no overlay[^\n]*\n$/),
      });
      expect(done.stdout).toMatch(/^fuse\.kasane guest1 .*noatime.*\n/);
      expect(done.stdout).toContain('\nbase\n');
      expect(done.stdout).toContain(`\noverlay ${overlay}\n`);
    }),
  120_000,
);

mountTest(
  'a guest reaches neither the attributes of overlayfs and Kasane, nor whiteouts, nor Kasane’s directory',
  () =>
    withLayers(async (layers) => {
      fs.mkdirSync(`${layers.base}/d`);
      fs.writeFileSync(`${layers.base}/d/f`, 'base\n');
      await withMount(layers, async (mount) => {
        const { mnt, overlay } = layers;
        await ripen(`${layers.base}/d/f`);
        await mount.sh('echo guest >> d/f; mkdir own');
        const kept = await runOk('getfattr', ['-d', '-m', '-', '-e', 'hex', `${overlay}/d/f`]);
        expect(kept).toContain('trusted.kasane.origin=');
        // Its own attributes of such names are the guest's own, and change nothing.
        await mount.sh(`
        setfattr -n trusted.overlay.opaque -v y d
        setfattr -n trusted.overlay.redirect -v /etc own
        test "$(getfattr --only-values -n trusted.overlay.opaque d)" = y
        test "$(ls d)" = f
        test "$(getfattr --absolute-names -d -m - d | grep -c overlay)" = 1
        test -z "$(getfattr -d -m - d/f)"
        setfattr -x trusted.overlay.opaque d
      `);
        for (const prefix of ['trusted', 'user']) {
          const name = `${prefix}.kasane.origin`;
          const set = await run('setfattr', ['-n', name, '-v', 'x', `${mnt}/d/f`]);
          expect(set.stderr).toContain('Operation not permitted');
          expect((await run('getfattr', ['-n', name, `${mnt}/d/f`])).stderr).toContain('No such attribute');
          expect((await run('setfattr', ['-x', name, `${mnt}/d/f`])).stderr).toContain('No such attribute');
        }
        expect(await runOk('getfattr', ['-d', '-m', '-', '-e', 'hex', `${overlay}/d/f`])).toBe(kept);
        expect((await run('mknod', [`${mnt}/w`, 'c', '0', '0'])).stderr).toContain('Operation not permitted');
        expect((await run('mknod', [`${mnt}/d/f`, 'c', '0', '0'])).code).toBe(1);
        expect(await mount.sh('ls -a')).toBe('.\n..\nd\nown\n');
        expect(fs.statSync(`${overlay}/.kasane`).mode & 0o777).toBe(0o700);
        // What stands at that name is the control directory, and nothing comes to it or goes from it.
        for (const script of [
          'cat .kasane/format',
          'ls .kasane/index',
          'rm -r .kasane',
          'rmdir .kasane',
          'mv .kasane k',
          'mv own .kasane',
          'mv -T own .kasane/own',
          'ln d/f .kasane/f',
          'touch .kasane/new',
          'mkdir .kasane',
          'chmod 777 .kasane',
          'echo x > .kasane/status',
          'ln -s d .kasane',
        ]) {
          expect((await run('bash', ['-c', script], { cwd: mnt })).code, script).not.toBe(0);
        }
        expect(fs.existsSync(`${overlay}/.kasane/format`)).toBe(true);
        expect(await mount.sh('cat d/f')).toBe('base\nguest\n');
      });
    }),
);

mountTest('a daemon in the background logs to the file that it is given', () =>
  withLayers(async (layers) => {
    simple(layers);
    const { base, overlay, mnt, dir } = layers;
    const args = ['mount', '--base', base, '--overlay', overlay, '--log', `${dir}/log`, mnt];
    expect(await kasane(args)).toMatchObject({ code: 0 });
    const pid = daemonOf(mnt) as number;
    await takeDown(mnt);
    expect(await waitUntil(() => !isAlive(pid))).toBe(true);
    expect(fs.readFileSync(`${dir}/log`, 'utf8')).toMatch(/info main: \S+\/mnt: unmounted\n$/);
    expect(fs.statSync(`${dir}/log`).mode & 0o777).toBe(0o600);
  }),
);

/** Mounts with 250 descriptors. As root it would help itself to more; `kept`: it may not. */
async function mountWithFew({ base, overlay, mnt }: Layers, kept: boolean): Promise<void> {
  const may = kept ? 'setpriv --bounding-set -sys_resource --inh-caps -sys_resource' : '';
  const script = `ulimit -n 250; exec ${may} "$1" "$2" mount --base "$3" --overlay "$4" "$5"`;
  await runOk('sh', ['-c', script, 'sh', process.execPath, mainFile, base, overlay, mnt]);
}

mountTest(
  'with few descriptors it walks more directories than it may have open, and reads as many files',
  () =>
    withLayers(async (layers) => {
      const { base, mnt } = layers;
      const count = 300;
      for (let i = 0; i < count; i++) {
        fs.mkdirSync(`${base}/d${i}`);
        fs.writeFileSync(`${base}/d${i}/f`, 'x\n');
      }
      await mountWithFew(layers, true);
      try {
        const walk =
          'ls -R | grep -c f; cat d*/f | wc -l; for d in d?; do echo y >> $d/f; done; cat d*/f | wc -l';
        expect(await sh(walk, [], { cwd: mnt })).toBe(`${count}\n${count}\n${count + 10}\n`);
      } finally {
        await stopBackground(mnt);
      }
    }),
  { commands: ['setpriv'] },
);

/** CAP_SYS_RESOURCE of the machine itself: root of a container or a user namespace may be without. */
const mayRaiseLimits = () => {
  if (inUserNamespace()) return false;
  const told = /^CapEff:\s*([0-9a-f]+)/m.exec(fs.readFileSync('/proc/self/status', 'utf8'));
  return ((BigInt(`0x${told?.[1] ?? '0'}`) >> 24n) & 1n) === 1n;
};

mountTest('as many files may be open as the guest has descriptors, and not as who has mounted it', () =>
  withLayers(async (layers) => {
    simple(layers);
    await mountWithFew(layers, false);
    try {
      const agent = startAgent();
      try {
        const attempts = Array.from({ length: 400 }, (_, i) =>
          agent.call('openSync', `${layers.mnt}/f${i}`, 'w'),
        );
        const opened = (await Promise.allSettled(attempts)).filter(({ status }) => status === 'fulfilled');
        if (mayRaiseLimits()) expect(opened.length).toBe(attempts.length);
        else expect(opened.length).toBeLessThan(250);
      } finally {
        await agent.stop();
      }
    } finally {
      await stopBackground(layers.mnt);
    }
  }),
);
