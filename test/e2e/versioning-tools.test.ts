// Packages, repositories and services on real mounts, with updates of the base amidst: tools that replace files,
// link them, move them away, or take whole directories away and put them back.
import * as fs from 'node:fs';
import { expect } from 'vitest';
import { mountTest } from '../lib/needs.ts';
import { runOk, sh, waitUntil } from '../lib/run.ts';
import { type Guest, text, withGuest, writeFiles } from '../lib/versioning.ts';

const base3 = { 3: 'BASE 3' };
const guest15 = { 15: 'guest' };
const both = text({ ...base3, ...guest15 });

/** A package of these files, built in a folder beside the mount. */
async function buildDeb(guest: Guest, version: string, files: Record<string, string>): Promise<string> {
  const root = `${guest.dir}/deb-${version}`;
  const fields = [
    'Package: demo',
    `Version: ${version}`,
    'Architecture: all',
    'Maintainer: nobody <n@example.org>',
  ];
  writeFiles(root, { ...files, 'DEBIAN/control': `${fields.join('\n')}\nDescription: demo\n` });
  const conffiles = Object.keys(files).filter((name) => name.startsWith('etc/'));
  fs.writeFileSync(`${root}/DEBIAN/conffiles`, conffiles.map((name) => `/${name}\n`).join(''));
  const deb = `${guest.dir}/demo_${version}.deb`;
  await runOk('dpkg-deb', ['--build', '--root-owner-group', root, deb]);
  return deb;
}

/** dpkg on a tree that has hardly anything else. */
function dpkg(root: string, args: readonly string[]): Promise<string> {
  const quiet = ['--force-not-root', '--force-script-chrootless', '--force-confold', '--no-triggers'];
  return runOk('dpkg', [`--root=${root}`, '--log=/dev/null', ...quiet, ...args]);
}

const dpkgBase = {
  'var/lib/dpkg/status': '',
  'var/lib/dpkg/available': '',
  'var/lib/dpkg/updates': null,
  'var/lib/dpkg/info/format': '1\n',
  'var/lib/dpkg/triggers': null,
};

mountTest(
  'dpkg in the guest installs over files of the base, which keep their ancestors there',
  () =>
    withGuest(
      { files: { ...dpkgBase, 'etc/demo.conf': text(), 'usr/share/demo/data': text() } },
      async (guest) => {
        const files = { 'etc/demo.conf': text(guest15), 'usr/share/demo/data': text(guest15) };
        await dpkg(guest.mnt, ['-i', await buildDeb(guest, '1', files)]);
        // --force-confold kept the conffile that was there.
        expect(await guest.read('etc/demo.conf')).toBe(text());
        expect(await guest.read('usr/share/demo/data')).toBe(text(guest15));
        await guest.update('usr/share/demo/data', text(base3), 'replace, same mtime');
        expect(await guest.read('usr/share/demo/data')).toBe(both);
        await guest.update('etc/demo.conf', text(base3));
        expect(await guest.read('etc/demo.conf')).toBe(text(base3));
        expect(await guest.conflictList()).toEqual([]);
        expect(fs.readdirSync(`${guest.overlay}/etc`)).not.toContain('demo.conf.dpkg-new');
      },
    ),
  { commands: ['dpkg', 'dpkg-deb'] },
);

mountTest(
  'dpkg in the base updates a package: what guests changed is merged, what they did not follows',
  () =>
    withGuest({ files: { ...dpkgBase } }, async (guest) => {
      const one = await buildDeb(guest, '1', { 'etc/demo.conf': text(), 'opt/demo/data': text() });
      await guest.changeBase(() => dpkg(guest.base, ['-i', one]));
      await guest.mount.sh('sed -i "s/^line 15$/guest/" etc/demo.conf; cat opt/demo/data > /dev/null');
      const two = await buildDeb(guest, '2', { 'etc/demo.conf': text(base3), 'opt/demo/data': text(base3) });
      await guest.changeBase(() => dpkg(guest.base, ['--force-confnew', '-i', two]));
      expect(await guest.read('etc/demo.conf')).toBe(both);
      expect(await guest.read('opt/demo/data')).toBe(text(base3));
      expect(guest.raw('opt/demo/data')).toBe(null);
      expect(await guest.conflictList()).toEqual([]);
    }),
  { commands: ['dpkg', 'dpkg-deb'] },
);

mountTest(
  'git checkout there and back: the files follow the base as if nothing had been',
  () =>
    withGuest({ files: { 'repo/README': 'readme\n' } }, async (guest) => {
      const git = `git -c user.name=n -c user.email=e@example.org -C "$1"`;
      await guest.changeBase(() =>
        sh(
          `${git} init -q -b main; mkdir "$1/conf"; cp "$2" "$1/conf/a"; cp "$2" "$1/conf/b"; cp "$2" "$1/conf/c"
           ${git} add .; ${git} commit -qm one; ${git} checkout -qb bare; ${git} rm -qr conf
           ${git} commit -qm bare; ${git} checkout -q main`,
          [`${guest.base}/repo`, write(guest, 'text', text())],
        ),
      );
      // The directory is removed and made anew by this: opaque in the overlay.
      await guest.mount.sh(
        'cd repo; git checkout -q bare; [ ! -e conf ]; git checkout -q main; [ -e conf/a ]',
      );
      await guest.mount.sh('sed -i "s/^line 15$/guest/" repo/conf/a');
      await guest.update('repo/conf/a', text(base3), 'replace, same mtime');
      await guest.update('repo/conf/b', text(base3), 'in place');
      expect(await guest.read('repo/conf/a')).toBe(both);
      expect(await guest.read('repo/conf/b')).toBe(text(base3));
      // The base moves while they are away: what comes back continues what was there.
      await guest.mount.sh('cd repo; git checkout -q -f bare; [ ! -e conf ]');
      await guest.update('repo/conf/c', text(base3), 'replace, same mtime');
      await guest.mount.sh('cd repo; git checkout -q main');
      expect(await guest.read('repo/conf/c')).toBe(text(base3));
      expect((await guest.conflictList()).filter((line) => line.includes('conf/'))).toEqual([]);
    }),
  { commands: ['git'] },
);

mountTest(
  'a repository that both sides have committed to stays the guest’s, and whole',
  () =>
    withGuest({ files: { 'repo/f': text(), 'repo/g': text() } }, async (guest) => {
      const git = `git -c user.name=n -c user.email=e@example.org -C "$1"`;
      const inBase = (script: string) => guest.changeBase(() => sh(script, [`${guest.base}/repo`]));
      await inBase(`${git} init -q -b main; ${git} add .; ${git} commit -qm one`);
      const repo = guest.at('repo');
      await sh(`sed -i 's/^line 15$/guest/' "$1/f"; ${git} commit -qam guest`, [repo]);
      const head = await sh(`${git} rev-parse HEAD`, [repo]);
      await inBase(`sed -i 's/^line 3$/BASE 3/' "$1/f"; ${git} commit -qam base`);
      expect(await guest.read('repo/f')).toBe(both);
      await guest.mount.sh('find repo/.git -type f -exec cat {} + > /dev/null');
      expect(await sh(`${git} rev-parse HEAD`, [repo])).toBe(head);
      expect(await sh(`${git} fsck --strict 2>&1`, [repo])).not.toMatch(/error|missing|corrupt/);
      const conflicts = await guest.conflictList();
      expect(conflicts).toContain('repo/.git/refs/heads/main binary');
      // Nothing of the repository was merged line by line, nor replaced.
      const log = await guest.kasane(['log', '--json', guest.at('repo/.git')]);
      const events = JSON.parse(log.stdout) as { kind: string; path: string }[];
      expect(events.filter((event) => /merged|dropped/.test(event.kind))).toEqual([]);
    }),
  { commands: ['git'] },
);

mountTest('a directory removed and made anew hides what the base adds, but not what it updates', () =>
  withGuest({ files: { 'd/a': text(), 'd/b': text(), 'd/sub/c': text() } }, async (guest) => {
    const copy = write(guest, 'text', text());
    await guest.mount.sh(
      `cp -a d d.old; rm -r d; mkdir -p d/sub; cp ${copy} d/a; cp ${copy} d/sub/c; rm -r d.old`,
    );
    await guest.mount.sh('sed -i "s/^line 15$/guest/" d/a');
    await guest.update('d/a', text(base3));
    await guest.update('d/sub/c', text(base3));
    await guest.update('d/new', 'new\n');
    await guest.update('d/b', text(base3));
    expect(await guest.read('d/a')).toBe(both);
    expect(await guest.read('d/sub/c')).toBe(text(base3));
    expect(await guest.mount.sh('ls d d/sub')).toBe('d:\na\nsub\n\nd/sub:\nc\n');
    expect(await guest.conflictList()).toEqual([]);
  }),
);

mountTest(
  'logrotate moves logs away and makes new ones: they are the guest’s own from then on',
  () =>
    withGuest({ files: { 'var/log/app.log': 'base\n', 'var/lib/logrotate/.keep': '' } }, async (guest) => {
      const conf = write(
        guest,
        'logrotate.conf',
        `${guest.at('var/log/app.log')} { rotate 2\n create 0644 root root\n nocompress\n }\n`,
      );
      fs.chmodSync(conf, 0o644);
      await guest.mount.sh('echo guest >> var/log/app.log');
      const state = guest.at('var/lib/logrotate/status');
      await runOk('logrotate', ['--force', '--state', state, conf]);
      await guest.update('var/log/app.log', 'base\nmore of the base\n');
      await guest.mount.sh('echo again >> var/log/app.log');
      expect(await guest.read('var/log/app.log')).toBe('again\n');
      expect(await guest.read('var/log/app.log.1')).toBe('base\nguest\n');
      expect(await guest.conflictList()).toEqual([]);
    }),
  { commands: ['logrotate'] },
);

mountTest(
  'systemctl enable makes links; the base that makes the same ones agrees',
  () =>
    withGuest(
      {
        files: {
          'etc/systemd/system/multi-user.target.wants': null,
          'usr/lib/systemd/system/demo.service':
            '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n',
        },
      },
      async (guest) => {
        const systemctl = (root: string, verb: string) =>
          runOk('systemctl', [`--root=${root}`, verb, 'demo.service']);
        const link = 'etc/systemd/system/multi-user.target.wants/demo.service';
        await systemctl(guest.mnt, 'enable');
        const target = guest.raw(link);
        expect(target).toContain('demo.service');
        await guest.changeBase(() => systemctl(guest.base, 'enable'));
        expect(await guest.mount.sh(`readlink ${link}`)).toBe(`${target}\n`);
        expect(await guest.conflictList()).toEqual([]);
        // The base's is hidden by the guest's wish, and stays so.
        await systemctl(guest.mnt, 'disable');
        expect(await guest.exists(link)).toBe(false);
        await guest.changeBase(() => systemctl(guest.base, 'reenable'));
        expect(await guest.exists(link)).toBe(false);
      },
    ),
  { commands: ['systemctl'] },
);

mountTest(
  'update-alternatives on both sides: the guest’s choice stays, an untouched link follows',
  () =>
    withGuest(
      {
        files: {
          'etc/alternatives': null,
          'admin/.keep': '',
          'bin/vi.tiny': '',
          'bin/vi.big': '',
          'bin/vi.huge': '',
        },
      },
      async (guest) => {
        const alternatives = (root: string, name: string, args: readonly string[]) =>
          runOk('update-alternatives', [
            ...['--quiet', '--altdir', `${root}/etc/alternatives`, '--admindir', `${root}/admin`],
            ...['--log', '/dev/null', ...args.map((arg) => arg.replace('@', root).replace('NAME', name))],
          ]);
        const install = (root: string, name: string, what: string, priority: string) =>
          alternatives(root, name, ['--install', '@/bin/NAME', 'NAME', `@/bin/vi.${what}`, priority]);
        await guest.changeBase(async () => {
          await install(guest.base, 'vi', 'tiny', '10');
          await install(guest.base, 'view', 'tiny', '10');
          fs.mkdirSync(`${guest.base}/etc/plain`);
          fs.symlinkSync('one', `${guest.base}/etc/plain/link`);
        });
        // In the guest: the link is made anew and renamed over the base's.
        await guest.mount.sh(
          'ln -sfn vi.big etc/alternatives/vi.new; mv -T etc/alternatives/vi.new etc/alternatives/vi',
        );
        await guest.mount.sh('ln -sfn one etc/plain/link.new; mv -T etc/plain/link.new etc/plain/link');
        await guest.changeBase(async () => {
          await install(guest.base, 'vi', 'huge', '90');
          await install(guest.base, 'view', 'huge', '90');
          fs.rmSync(`${guest.base}/etc/plain/link`);
          fs.symlinkSync('two', `${guest.base}/etc/plain/link`);
        });
        const links = () =>
          guest.mount.sh('readlink etc/alternatives/vi etc/alternatives/view etc/plain/link');
        // Who reads a link does not wait for what becomes of it.
        const expected = `vi.big\n${guest.base}/bin/vi.huge\ntwo\n`;
        await waitUntil(async () => (await links()) === expected);
        expect(await links()).toBe(expected);
        expect(await guest.conflictList()).toEqual(['etc/alternatives/vi text']);
      },
    ),
  { commands: ['update-alternatives'] },
);

/** A file beside the mount. */
function write(guest: Guest, name: string, content: string): string {
  fs.writeFileSync(`${guest.dir}/${name}`, content);
  return `${guest.dir}/${name}`;
}
