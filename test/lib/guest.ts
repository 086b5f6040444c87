// A real guest: Debian 12 as a base, and User Mode Linux with its root on a mount (hostfs), for tests that want a
// whole system. The base is made once by mmdebstrap and kept in a cache; each test works on a copy of its own.
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { runOk, waitUntil } from './run.ts';
import { startUml, umlBarred } from './uml.ts';

export const guestNeeds = { commands: ['mmdebstrap', 'linux.uml', 'dpkg-deb', 'chroot'], barred: umlBarred };

const PACKAGES = 'systemd-sysv,udev,dbus,kmod,iproute2,netbase,openssh-server,adduser,passwd';
const SUITE = 'bookworm';
const MINUTES = 60_000;

/** A copy of the cached base in DIR/base. */
export async function debianBase(dir: string): Promise<string> {
  const cache = process.env.XDG_CACHE_HOME ?? '/var/cache';
  const tag = createHash('sha256').update(`${SUITE} ${PACKAGES}`).digest('hex').slice(0, 12);
  const cached = path.join(cache, 'kasane-test', `debian-${tag}`);
  if (!fs.existsSync(cached)) {
    fs.mkdirSync(path.dirname(cached), { recursive: true });
    const fresh = fs.mkdtempSync(`${cached}-new-`);
    const args = ['--variant=minbase', `--include=${PACKAGES}`, SUITE, fresh];
    await runOk('mmdebstrap', args, { timeout: 8 * MINUTES });
    fs.renameSync(fresh, cached);
  }
  const base = path.join(dir, 'base');
  await runOk('cp', ['-a', '--reflink=auto', cached, base], { timeout: 2 * MINUTES });
  return base;
}

export interface Guest {
  /** What it has written to its console so far. */
  console: () => string;
  /** Waits for a text on the console; false after the time. */
  says: (text: string, timeout: number) => Promise<boolean>;
  /** Resolves when it has shut down. */
  ended: Promise<void>;
}

/** Boots a guest whose root is the directory (a mount). Taken down at the end of the test file at the latest. */
export function bootUml(root: string, id: string): Guest {
  const { console, isOver, ended } = startUml(root, id, [
    'mem=384M',
    'rw',
    'con1=null',
    'systemd.unit=multi-user.target',
  ]);
  return {
    console,
    says: (wanted, timeout) =>
      waitUntil(() => console().includes(wanted) || isOver(), timeout).then(() => console().includes(wanted)),
    ended,
  };
}

/** A package with one program and one conffile. */
export async function buildPackage(
  dir: string,
  spec: { name: string; version: string; files: Record<string, string>; conffiles: readonly string[] },
): Promise<string> {
  const tree = path.join(dir, `${spec.name}-${spec.version}`);
  for (const [name, content] of Object.entries(spec.files)) {
    const file = path.join(tree, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, content, { mode: name.includes('/bin/') ? 0o755 : 0o644 });
  }
  const control = path.join(tree, 'DEBIAN');
  fs.mkdirSync(control, { recursive: true });
  const fields = [
    `Package: ${spec.name}`,
    `Version: ${spec.version}`,
    'Architecture: all',
    'Maintainer: Nobody <nobody@example.org>',
    'Description: for a test',
  ];
  fs.writeFileSync(path.join(control, 'control'), `${fields.join('\n')}\n`);
  fs.writeFileSync(path.join(control, 'conffiles'), spec.conffiles.map((name) => `/${name}\n`).join(''));
  const deb = `${tree}.deb`;
  await runOk('dpkg-deb', ['--root-owner-group', '--build', tree, deb]);
  return deb;
}
