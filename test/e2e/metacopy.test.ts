// Copies of metadata alone: what changes owner, mode, times or attributes of a base file leaves its content where it
// is, and that goes on following the base until somebody writes to it.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { startAgent } from '../lib/agent.ts';
import { ripen } from '../lib/base-update.ts';
import { caughtUp, kasane, type Layers, withLayers, withMount } from '../lib/kasane.ts';
import { takeDown } from '../lib/mounts.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh, waitUntil } from '../lib/run.ts';
import { text, withGuest, writeFiles } from '../lib/versioning.ts';

const base3 = text({ 3: 'BASE' });
const GIB = 2 ** 30;
/** What a file takes up that has attributes and no content. */
const NO_CONTENT = 16;

const metacopyAttr = async (file: string) =>
  (await runOk('getfattr', ['--absolute-names', '-m-', file])).includes('trusted.overlay.metacopy');

mountTest(
  'chmod, chown, utimes, attributes and ACLs copy no content; the first write does',
  () =>
    withGuest({ files: { f: text(), g: text(), dir: null } }, async (guest) => {
      await ripen(guest.base);
      await guest.mount.sh(
        'chmod 640 f; chown 5:6 f; touch -cd 2001-02-03 f; setfattr -n user.a -v b f; setfacl -m u:7:r g',
      );
      for (const name of ['f', 'g']) {
        const { blocks, size } = fs.statSync(`${guest.overlay}/${name}`);
        expect(blocks).toBeLessThanOrEqual(NO_CONTENT);
        expect(size).toBe(fs.statSync(`${guest.base}/${name}`).size);
        expect(await metacopyAttr(`${guest.overlay}/${name}`)).toBe(true);
      }
      expect(await guest.read('f')).toBe(text());
      expect(await guest.mount.sh('getfattr -dm- f; getfacl -ac g')).not.toContain('overlay');
      const status = JSON.parse((await guest.kasane(['status', '--json', guest.mnt])).stdout);
      expect(status.counts).toMatchObject({ metadataOnly: 2, withoutContent: 0, stale: 0 });
      expect(status.overlayfsOptions).toBe('metacopy=on,redirect_dir=on');

      const shown = () =>
        guest.mount.sh('stat -c "%i %a %u %g" f g; getfattr --only-values -n user.a f; getfacl -c g');
      const [metadata, mtime] = [await shown(), fs.statSync(guest.at('f')).mtimeMs];
      const fd = fs.openSync(guest.at('f'), 'r+');
      expect(fs.statSync(guest.at('f')).mtimeMs).toBe(mtime);
      expect(await metacopyAttr(`${guest.overlay}/f`)).toBe(false);
      fs.writeSync(fd, 'LINE');
      fs.closeSync(fd);
      await guest.mount.sh('truncate -s 5 g');
      expect(await guest.read('f')).toBe(text().replace('line', 'LINE'));
      expect(await guest.read('g')).toBe('line ');
      expect(await shown()).toBe(metadata);
      expect(guest.raw('f')).toBe(text().replace('line', 'LINE'));
      expect(await guest.events('f')).toEqual(['copy-up', 'copy-up']);
    }),
  { commands: ['setfattr', 'getfattr', 'setfacl'] },
);

mountTest('a chmod of a file of several GiB takes up as little as one of any other', () =>
  withLayers(async (layers) => {
    const end = 'printf end | dd of=big bs=1 seek=4294967290 conv=notrunc 2> /dev/null';
    await sh(`cd "$1"; truncate -s 4G big; ${end}`, [layers.base]);
    await withMount({ ...layers, options: ['--copy-up-limit', '1000'] }, async (mount) => {
      const file = `${mount.dir}/big`;
      const { size, blocks, ino } = fs.statSync(file);
      await mount.sh('chmod 640 big; chown 5:6 big');
      expect(fs.statSync(file)).toMatchObject({ size, blocks, ino, mode: 0o100640, uid: 5, gid: 6 });
      expect(fs.statSync(`${layers.overlay}/big`)).toMatchObject({ size: 4 * GIB });
      expect(fs.statSync(`${layers.overlay}/big`).blocks).toBeLessThanOrEqual(NO_CONTENT);
      expect(await mount.sh('tail -c 6 big')).toBe('end\0\0\0');
      await expect(mount.sh('echo >> big')).rejects.toThrow(/File too large/);
    });
  }),
);

mountTest('the content follows the base with its size and mtime; who has it open keeps what they have', () =>
  withGuest({ files: { f: text(), touched: text() } }, async (guest) => {
    await ripen(guest.base);
    await guest.mount.sh('chmod 640 f touched; touch -cd 2001-02-03 touched');
    const agent = startAgent();
    const old = await agent.call<number>('openSync', guest.at('f'), 'r');
    await guest.update('f', base3);
    // At once, whatever has been looked at.
    expect(fs.statSync(guest.at('f'))).toMatchObject({
      size: base3.length,
      mtimeMs: fs.statSync(`${guest.base}/f`).mtimeMs,
      mode: 0o100640,
    });
    expect(await guest.read('f')).toBe(base3);
    expect(await agent.call<string>('readFileSync', old, 'utf8')).toBe(text());
    expect((await agent.call<{ size: number; mode: number }>('fstatSync', old)).size).toBe(text().length);
    await agent.stop();
    // An edit in place, and one that keeps the mtime.
    await guest.update('f', text({ 3: 'in place' }), 'in place');
    expect(await guest.read('f')).toBe(text({ 3: 'in place' }));
    await guest.update('f', text({ 3: 'same mtime' }), 'replace, same mtime');
    expect(await guest.read('f')).toBe(text({ 3: 'same mtime' }));
    expect(guest.raw('f')).toMatch(/^\0+$/);
    expect(await guest.events('f')).toEqual(['copy-up']);
    expect(await guest.conflictList()).toEqual([]);
    // What is written from now on stands upon the newest.
    expect(fs.statSync(guest.at('touched')).mtime.getFullYear()).toBe(2001);
    await guest.mount.sh('sed -i s/^line.15$/guest/ f; printf x >> touched');
    await guest.update('f', base3);
    expect(await guest.read('f')).toBe(text({ 3: 'BASE', 15: 'guest' }));
  }),
);

mountTest('at a new name it is the guest’s own, with the bytes that it had', () =>
  withGuest({ files: { f: text(), g: text(), h: text() } }, async (guest) => {
    await guest.mount.sh('chmod 600 f g h; mv f f.old; ln g g.too; rm g; mv h g');
    for (const name of ['f', 'g', 'h']) await guest.update(name, base3);
    await guest.changeBase(() => fs.rmSync(`${guest.base}/h`));
    expect(await guest.read('f.old')).toBe(text());
    expect(await guest.read('g.too')).toBe(text());
    expect(await guest.exists('f')).toBe(false);
    expect(fs.statSync(guest.at('f.old')).mode & 0o777).toBe(0o600);
    const open = await startAgentOn(guest.at('g'));
    await guest.mount.sh('rm g');
    expect(await open.read()).toBe(base3);
    await open.stop();
  }),
);

async function startAgentOn(file: string) {
  const agent = startAgent();
  const fd = await agent.call<number>('openSync', file, 'r');
  return { read: () => agent.call<string>('readFileSync', fd, 'utf8'), stop: () => agent.stop() };
}

mountTest('when the base deletes the content, it goes; what an ancestor has the bytes of is kept', () =>
  withGuest({ files: { gone: text(), kept: text(), open: text(), rest: '' } }, async (guest) => {
    await ripen(guest.base);
    // Guest and base come to the same content, and the mode is the guest's: no bytes of its own are left.
    await guest.mount.sh('chmod 600 gone open; chmod 600 kept; sed -i s/^line.3$/BASE/ kept');
    await guest.update('kept', base3);
    expect(await guest.read('kept')).toBe(base3);
    expect(await waitUntil(() => metacopyAttr(`${guest.overlay}/kept`))).toBe(true);
    const open = await startAgentOn(guest.at('open'));
    await guest.changeBase(() => {
      for (const name of ['gone', 'kept', 'open']) fs.rmSync(`${guest.base}/${name}`);
    });
    expect(await guest.mount.sh('ls; cat gone 2>&1 || true')).toMatch(/No such file|Input\/output error/);
    expect(await waitUntil(async () => !(await guest.exists('gone')))).toBe(true);
    expect(await guest.events('gone')).toEqual(['copy-up', 'dropped']);
    await guest.mount.sh('cat kept > /dev/null || true');
    expect(await waitUntil(async () => guest.raw('kept') === base3)).toBe(true);
    expect(await guest.read('kept')).toBe(base3);
    expect(fs.statSync(guest.at('kept')).mode & 0o777).toBe(0o600);
    expect(await guest.events('kept')).toContain('kept');
    expect(await open.read()).toBe(text());
    await open.stop();
  }),
);

mountTest(
  'undo brings a copy of metadata alone back, and diff and show give the base’s content for its own',
  () =>
    withGuest({ files: { f: text() } }, async (guest) => {
      await guest.mount.sh('chmod 646 f');
      await guest.changeBase(() => fs.chmodSync(`${guest.base}/f`, 0o600));
      await guest.mount.sh('cat f > /dev/null');
      expect(fs.statSync(guest.at('f')).mode & 0o777).toBe(0o600);
      expect(await metacopyAttr(`${guest.overlay}/f`)).toBe(true);
      expect(await guest.kasane(['undo', guest.at('f')])).toMatchObject({ code: 0 });
      expect(fs.statSync(guest.at('f')).mode & 0o777).toBe(0o646);
      expect(await metacopyAttr(`${guest.overlay}/f`)).toBe(true);
      expect(await guest.read('f')).toBe(text());
      const shown = await guest.kasane(['show', '--side', 'overlay', guest.at('f')]);
      expect(shown).toMatchObject({ code: 0, stdout: text() });
      const diff = await guest.kasane(['diff', guest.at('f')]);
      expect(diff.stdout).not.toContain('line 3');
      expect(diff.stdout).toContain('646');
    }),
);

mountTest('files with several names or capabilities, and all with --metacopy off, are copied whole', () =>
  withLayers(async (layers) => {
    writeFiles(layers.base, { plain: text(), two: text(), able: text() });
    await sh('cd "$1"; ln two names; chmod 755 able; setcap cap_net_raw+ep able', [layers.base]);
    const whole = () =>
      Promise.all(
        ['plain', 'two', 'able'].map(async (name) => !(await metacopyAttr(`${layers.overlay}/${name}`))),
      );
    await withMount(layers, async (mount) => {
      await mount.sh('chmod 600 plain two; chmod 700 able; test -n "$(getcap able)"');
      expect(await whole()).toEqual([false, true, true]);
    });
    await withMount({ ...layers, options: ['--metacopy', 'off'] }, async (mount) => {
      expect(await mount.sh('stat -c %a plain; cat plain')).toBe(`600\n${text()}`);
      await mount.sh('rm plain two able; cat names > /dev/null');
    });
    await sh('rm -r "$1"; mkdir "$1"', [layers.overlay]);
    await withMount({ ...layers, options: ['--metacopy', 'off'] }, async (mount) => {
      await mount.sh('chmod 600 plain two able');
      expect(await whole()).toEqual([true, true, true]);
    });
  }),
);

/** What overlayfs makes of it, with copies of metadata alone. */
async function underOverlayfs({ base, overlay, dir, mnt }: Layers, script: string): Promise<string> {
  fs.mkdirSync(`${dir}/work`, { recursive: true });
  const options = `lowerdir=${base},upperdir=${overlay},workdir=${dir}/work,metacopy=on,redirect_dir=on`;
  await runOk('mount', ['-t', 'overlay', '-o', options, 'none', mnt]);
  try {
    return await sh(script, [], { cwd: mnt });
  } finally {
    await takeDown(mnt);
  }
}

mountTest(
  'those that overlayfs has made are read, and written to; one whose content has gone gives EIO and is named',
  () =>
    withLayers(async (layers) => {
      const names = ['a', 'b', 'c', 'd/deep', 'd/gone', 'follows'];
      writeFiles(layers.base, Object.fromEntries(names.map((name) => [name, `${name}\n`])));
      await underOverlayfs(
        layers,
        'chmod 600 a b c d/deep d/gone follows; mv a a2; ln b b2; mv b d/b; mv d e; mv e/gone gone2; mv c e/c',
      );
      await withMount(layers, async (mount) => {
        expect(await mount.sh('cat a2 b2 e/b e/c e/deep gone2 follows')).toBe(
          'a\nb\nb\nc\nd/deep\nd/gone\nfollows\n',
        );
        fs.writeFileSync(`${layers.base}/follows`, 'more than before\n');
        await caughtUp(mount.dir);
        expect(await mount.sh('cat follows; stat -c %s follows')).toBe('more than before\n17\n');
        await mount.sh('echo x >> a2; echo y >> b2; echo z >> e/deep; cat a2 b2 e/b');
        fs.rmSync(`${layers.base}/d/gone`);
        await caughtUp(mount.dir);
        await expect(mount.sh('cat gone2')).rejects.toThrow(/Input\/output error/);
        expect(await mount.sh('ls; stat -c %a gone2')).toContain('600\n');
        const status = JSON.parse((await kasane(['status', '--json', mount.dir])).stdout);
        expect(status.counts).toMatchObject({ withoutContent: 1 });
      });
      expect((await kasane(['check', layers.overlay])).stdout).toContain('gone2');
      fs.writeFileSync(`${layers.base}/d/gone`, 'back\n');
      const seen = await underOverlayfs(layers, 'cat a2 b2 e/b e/c e/deep gone2; stat -c %h b2');
      expect(seen).toBe('a\nx\nb\ny\nb\ny\nc\nd/deep\nz\nback\n2\n');
    }),
  { filesystems: ['overlay'] },
);

mountTest(
  'set-id bits that the guest has set go with the content, also where nobody can merge the rest',
  () =>
    withGuest({ files: { owned: text(), undone: text(), plain: text() } }, async (guest) => {
      const later = text({ 3: 'BASE', 7: 'BASE 7' });
      const modes = () =>
        ['owned', 'undone', 'plain'].map((name) => fs.statSync(guest.at(name)).mode & 0o7777);
      await guest.mount.sh('chown 1000 owned; chmod 4755 owned undone plain');
      expect(modes()).toEqual([0o4755, 0o4755, 0o4755]);
      await guest.changeBase(() => fs.chownSync(`${guest.base}/owned`, 1001, 0));
      for (const name of ['owned', 'undone', 'plain']) await guest.update(name, base3, 'in place');
      for (const name of ['owned', 'undone', 'plain']) expect(await guest.read(name)).toBe(base3);
      expect(modes()).toEqual([0o755, 0o755, 0o755]);
      expect(await guest.conflictList()).toEqual(['owned metadata']);
      expect(await guest.kasane(['undo', guest.at('undone')])).toMatchObject({ code: 0 });
      await guest.update('undone', later);
      expect(await guest.read('undone')).toBe(later);
      expect(modes()).toEqual([0o755, 0o755, 0o755]);
      expect(await guest.conflictList()).toEqual(['owned metadata', 'undone undone']);
    }),
);
