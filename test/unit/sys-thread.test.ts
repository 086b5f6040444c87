// The wrappers of sys/ that act on more than a file: waiting, leases, pool threads, the calling thread's
// credentials, mounts and sockets.
import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import koffi from 'koffi';
import { describe, expect, test } from 'vitest';
import { E } from '../../src/lib/errno.ts';
import * as C from '../../src/sys/constants.ts';
import * as creds from '../../src/sys/creds.ts';
import * as file from '../../src/sys/file.ts';
import { tryLock } from '../../src/sys/lock.ts';
import * as mounts from '../../src/sys/mount.ts';
import * as names from '../../src/sys/names.ts';
import * as poll from '../../src/sys/poll.ts';
import { recvFd, socketpair } from '../../src/sys/socket.ts';
import * as stats from '../../src/sys/stat.ts';
import * as xattrs from '../../src/sys/xattr.ts';
import { testNeeding } from '../lib/needs.ts';
import { openDirPerTest } from '../lib/open-dir.ts';

/** Thread id of the caller: a test may run in a worker. */
const gettid = () => Number(fs.readlinkSync('/proc/thread-self').split('/').at(-1));

const at = openDirPerTest();
const { keep, open, made, statOf } = at;

/** Fields of /proc/self/task/TID/status, by thread. */
function threads(field: string): Map<number, string> {
  const all = fs.readdirSync('/proc/self/task').map((tid): [number, string] => {
    const status = fs.readFileSync(`/proc/self/task/${tid}/status`, 'utf8');
    return [Number(tid), new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? ''];
  });
  return new Map(all);
}

describe('waiting', () => {
  test('poll3 tells which descriptor is ready, and eventfd wakes it', () => {
    const a = keep(poll.eventfd());
    const b = keep(poll.eventfd());
    expect(poll.poll3(a, b, -1, 0)).toBe(0);
    expect(poll.eventfdSignal(a)).toBe(0);
    expect(poll.eventfdSignal(a)).toBe(0);
    expect(poll.poll3(a, b, -1, -1)).toBe(1);
    expect(poll.poll3(-1, a, -1, -1)).toBe(2);
    poll.eventfdSignal(b);
    expect(poll.poll3(a, b, -1, -1)).toBe(3);
    expect(poll.eventfdClear(a)).toBe(1);
    expect(poll.eventfdClear(a)).toBe(0);
    expect(poll.poll3(a, b, -1, 1000)).toBe(2);
    const before = performance.now();
    expect(poll.poll3(a, -1, -1, 30)).toBe(0);
    expect(poll.poll3(-1, -1, a, 30)).toBe(0);
    expect(performance.now() - before).toBeGreaterThanOrEqual(29);
    expect(poll.eventfdSignal(-1)).toBe(-E.EBADF);
    expect(poll.eventfdClear(-1)).toBe(-E.EBADF);
  });

  test('a full eventfd is as good as a signalled one', () => {
    const fd = keep(poll.eventfd());
    const full = Buffer.alloc(8, 0xff);
    full[0] = 0xfe;
    expect(file.write(fd, full, 0, 8)).toBe(8);
    expect(poll.eventfdSignal(fd)).toBe(0);
    expect(poll.eventfdClear(fd)).toBe(1);
  });

  test('the other end of a closed socket is ready to be read, a closed descriptor too', () => {
    const [a, b] = socketpair() as [number, number];
    file.close(b);
    expect(poll.poll3(a, -1, -1, -1)).toBe(1);
    file.close(a);
    expect(poll.poll3(a, -1, -1, -1)).toBe(1);
  });

  test('a signal does not end a blocking read or a wait', async () => {
    const seen: string[] = [];
    const onSignal = () => seen.push('signal');
    process.on('SIGUSR2', onSignal);
    const [a, b] = socketpair() as [number, number];
    keep(a);
    const script = 'for i in 1 2; do sleep 0.1; kill -USR2 $0; sleep 0.1; printf x >&3; done';
    spawn('sh', ['-c', script, String(process.pid)], { stdio: ['ignore', 'ignore', 'ignore', b] });
    file.close(b);
    const buf = Buffer.alloc(4);
    expect(file.read(a, buf, 0, 4)).toBe(1);
    expect(poll.poll3(a, -1, -1, -1)).toBe(1);
    expect(file.read(a, buf, 0, 4)).toBe(1);
    expect(buf.toString('latin1', 0, 1)).toBe('x');
    await expect.poll(() => seen.length, { timeout: 20_000 }).toBeGreaterThan(0);
    process.off('SIGUSR2', onSignal);
  });

  test('inotify watches names and open objects', () => {
    const fd = keep(poll.inotifyInit());
    const watch = poll.inotifyAdd(fd, at.fd, '', C.IN_CREATE | C.IN_ONLYDIR);
    expect(watch).toBeGreaterThan(0);
    made('f\xe9');
    expect(poll.poll3(fd, -1, -1, 1000)).toBe(1);
    const buf = Buffer.alloc(4096);
    const events: unknown[] = [];
    const each = (...event: unknown[]) => events.push(event);
    poll.parseInotify(buf, file.read(fd, buf, 0, 4096), each);
    expect(events).toEqual([[watch, C.IN_CREATE, 0, 'f\xe9']]);
    expect(poll.inotifyRm(fd, watch)).toBe(0);
    expect(poll.inotifyRm(fd, watch)).toBe(-E.EINVAL);
    poll.parseInotify(buf, file.read(fd, buf, 0, 4096), each);
    expect(events[1]).toEqual([watch, C.IN_IGNORED, 0, '']);
    expect(file.read(fd, buf, 0, 4096)).toBe(-E.EAGAIN);
    expect(poll.inotifyAdd(fd, at.fd, 'none', C.IN_MODIFY)).toBe(-E.ENOENT);
    expect(poll.inotifyAdd(fd, at.fd, 'f\xe9', C.IN_MODIFY | C.IN_ONLYDIR)).toBe(-E.ENOTDIR);
    expect(poll.inotifyAdd(fd, C.AT_FDCWD, at.path, C.IN_MODIFY)).toBeGreaterThan(0);
  });
});

describe('leases and locks', () => {
  test('a read lease is refused while a writer has the file, and breaking one does no harm', () => {
    fs.writeFileSync(path.join(at.path, 'a'), 'x');
    const writer = file.openat(at.fd, 'a', C.O_WRONLY);
    const reader = open('a', C.O_RDONLY);
    expect(file.setLease(reader, C.F_RDLCK)).toBe(-E.EAGAIN);
    file.close(writer);
    expect(file.setLease(reader, C.F_RDLCK)).toBe(0);
    const script = `require('fs').openSync(process.argv[1], ${C.O_WRONLY | C.O_NONBLOCK})`;
    const child = spawnSync(process.execPath, ['-e', script, path.join(at.path, 'a')]);
    expect(child.stderr.toString()).toContain('EAGAIN');
    expect(file.setLease(reader, C.F_UNLCK)).toBe(0);
    expect(file.setLease(open('a', C.O_PATH), C.F_RDLCK)).toBe(-E.EBADF);
    expect(file.setLease(-1, C.F_RDLCK)).toBe(-E.EBADF);
  });

  test('tryLock belongs to one open file', () => {
    made('lock');
    const first = open('lock', C.O_RDWR);
    const second = open('lock', C.O_RDWR);
    expect(tryLock(first)).toBe(0);
    expect(tryLock(first)).toBe(0);
    expect(tryLock(second)).toBe(-E.EAGAIN);
    expect(file.flock(first, C.LOCK_UN)).toBe(0);
    expect(tryLock(second)).toBe(0);
    expect(tryLock(-1)).toBe(-E.EBADF);
  });
});

describe('on a pool thread', () => {
  test('values and contents', async () => {
    const fd = made('a', '0123456789');
    const to = made('b');
    const buf = Buffer.alloc(10, '.');
    expect(await file.preadAsync(fd, buf, 2, 5, 3)).toBe(5);
    expect(buf.toString('latin1')).toBe('..34567...');
    expect(await file.pwriteAsync(fd, Buffer.from('xyz'), 1, 2, 8)).toBe(2);
    expect(await file.copyFileRangeAsync(fd, 4, to, 1, 100)).toBe(6);
    expect(fs.readFileSync(path.join(at.path, 'b'), 'latin1')).toBe('\x004567yz');
    expect(await file.fsyncAsync(fd)).toBe(0);
    expect(await file.fdatasyncAsync(fd)).toBe(0);
    expect(await file.syncfsAsync(fd)).toBe(0);
    expect(await file.fallocateAsync(fd, 0, 0, 65536)).toBe(0);
    expect(statOf('a').size).toBe(65536);
    expect(await file.ficloneAsync(to, fd)).toBe(file.ficlone(to, fd));
    expect(await file.preadAsync(fd, buf, 5, 6, 0)).toBe(-E.EFAULT);
    expect(await file.pwriteAsync(fd, buf, -1, 6, 0)).toBe(-E.EFAULT);
  });

  test('each of many calls at a time gets its own errno', async () => {
    const fd = made('a', 'x');
    const [a, b] = socketpair() as [number, number];
    const [sock] = [keep(a), keep(b)];
    const directory = open('.', C.O_RDONLY);
    const buf = Buffer.alloc(4);
    const kinds: [() => Promise<number>, number][] = [
      [() => file.fsyncAsync(-1), -E.EBADF],
      [() => file.preadAsync(fd, buf, 0, 1, 0), 1],
      [() => file.preadAsync(directory, buf, 0, 4, 0), -E.EISDIR],
      [() => file.preadAsync(sock, buf, 0, 4, 0), -E.ESPIPE],
      [() => file.fallocateAsync(fd, 0, 0, 0), -E.EINVAL],
      [() => file.fallocateAsync(directory, 0, 0, 1), -E.EBADF],
      [() => file.fsyncAsync(sock), -E.EINVAL],
      [() => file.copyFileRangeAsync(directory, 0, fd, 0, 1), -E.EISDIR],
    ];
    const calls = Array.from({ length: 800 }, (_, i) => kinds[i % kinds.length] as (typeof kinds)[0]);
    const results = calls.map(([call]) => call());
    // What this thread does meanwhile sets its own errno.
    for (let i = 0; i < 100; i++) expect(file.openat(at.fd, 'none', 0)).toBe(-E.ENOENT);
    expect(await Promise.all(results)).toEqual(calls.map(([, wanted]) => wanted));
  });

  test('memory that only the call knows stays', async () => {
    const fd = made('a');
    const writes = Array.from({ length: 300 }, (_, i) =>
      file.pwriteAsync(fd, Buffer.allocUnsafeSlow(4096).fill(i & 0xff), 0, 4096, i * 4096),
    );
    for (let i = 0; i < 200; i++) Buffer.allocUnsafeSlow(65536).fill(0xee);
    expect(new Set(await Promise.all(writes))).toEqual(new Set([4096]));
    const content = fs.readFileSync(path.join(at.path, 'a'));
    for (let i = 0; i < 300; i++)
      expect(content.subarray(i * 4096, i * 4096 + 4096).every((x) => x === (i & 0xff))).toBe(true);
  });
});

describe('the calling thread', () => {
  testNeeding({ root: true }, 'setFsIds changes its owner and rights, and no other thread', () => {
    fs.chmodSync(at.path, 0o777);
    made('secret');
    made('given');
    const byRoot = open('given', C.O_PATH);
    expect(stats.fchownat(byRoot, '', 4_000_000_001, -1)).toBe(0);
    expect(creds.setFsIds(4_000_000_001, 4_000_000_002)).toBe(0);
    try {
      expect(threads('Uid').get(gettid())).toBe('0\t0\t0\t4000000001');
      expect(threads('Gid').get(gettid())).toBe('0\t0\t0\t4000000002');
      const others = [...threads('Uid')].filter(([tid]) => tid !== gettid());
      expect(others.length).toBeGreaterThan(0);
      for (const [, ids] of others) expect(ids).toBe('0\t0\t0\t0');
      expect(creds.hasCapability(C.CAP_DAC_OVERRIDE)).toBe(false);
      expect(stats.fchmodat(at.fd, 'secret', 0o600)).toBe(-E.EPERM);
      open('mine', C.O_CREAT | C.O_WRONLY);
      expect(statOf('mine')).toMatchObject({ uid: 4_000_000_001, gid: 4_000_000_002 });
      // Without rights over files the kernel refuses root's descriptor, and the way through /proc is taken.
      expect(names.linkFd(byRoot, at.fd, 'given too')).toBe(0);
      expect(creds.raiseFileCaps()).toBe(0);
      expect(creds.hasCapability(C.CAP_DAC_OVERRIDE)).toBe(true);
      expect(creds.hasCapability(C.CAP_CHOWN)).toBe(false);
      expect(stats.fchmodat(at.fd, 'secret', 0o600)).toBe(0);
      keep(file.openat(at.fd, 'secret', C.O_RDWR));
      open('mine2', C.O_CREAT | C.O_WRONLY);
      expect(statOf('mine2').uid).toBe(4_000_000_001);
      // Another user keeps what was raised; root and back loses it.
      expect(creds.setFsIds(1, 1)).toBe(0);
      expect(creds.hasCapability(C.CAP_FOWNER)).toBe(true);
      expect(creds.setFsIds(0, 0)).toBe(0);
      expect(creds.setFsIds(1, 1)).toBe(0);
      expect(creds.hasCapability(C.CAP_FOWNER)).toBe(false);
      expect(creds.raiseFileCaps()).toBe(0);
      expect(creds.hasCapability(C.CAP_FOWNER)).toBe(true);
      expect(creds.setFsIds(2 ** 32 - 1, 1)).toBe(-E.EPERM);
    } finally {
      expect(creds.setFsIds(0, 0)).toBe(0);
    }
    expect(creds.hasCapability(C.CAP_CHOWN)).toBe(true);
    const { privileged, actsForOthers, inNamespace } = creds.rightsOfProcess();
    expect(privileged).toBe(creds.hasCapability(C.CAP_SYS_ADMIN) && !inNamespace);
    expect(actsForOthers).toBe(creds.hasCapability(C.CAP_SETUID));
  });

  testNeeding({ root: true }, 'setGroups and a umask of its own leave the other threads alone', () => {
    const groups = threads('Groups');
    const masks = threads('Umask');
    const own = gettid();
    const before = process.getgroups?.() ?? [];
    expect(creds.setGroups([7, 4_000_000_000])).toBe(0);
    expect(creds.unshareFs()).toBe(0);
    const mask = process.umask();
    names.setUmask(0o077);
    expect(process.umask()).toBe(0o077);
    try {
      for (const [tid, list] of threads('Groups')) {
        if (groups.has(tid)) expect(list.trim()).toBe(tid === own ? '7 4000000000' : groups.get(tid)?.trim());
      }
      for (const [tid, value] of threads('Umask')) {
        if (masks.has(tid)) expect(value).toBe(tid === own ? '0077' : masks.get(tid));
      }
      expect(names.mkdirat(at.fd, 'd', 0o777)).toBe(0);
      expect(statOf('d').mode & 0o777).toBe(0o700);
    } finally {
      names.setUmask(mask);
      expect(creds.setGroups(before)).toBe(0);
    }
    expect(creds.setGroups([])).toBe(0);
    expect(creds.setGroups(before)).toBe(0);
  });

  testNeeding({ root: true }, 'a dropped capability is gone for the thread alone', () => {
    const before = threads('CapEff');
    expect(creds.dropCapability(C.CAP_SYS_RESOURCE)).toBe(0);
    expect(creds.hasCapability(C.CAP_SYS_RESOURCE)).toBe(false);
    expect(creds.dropCapability(C.CAP_SYS_RESOURCE)).toBe(0);
    for (const [tid, caps] of threads('CapEff')) {
      if (tid !== gettid() && before.has(tid)) expect(caps).toBe(before.get(tid));
    }
    const caps = BigInt(`0x${threads('CapEff').get(gettid())}`);
    expect(caps & (1n << BigInt(C.CAP_SYS_RESOURCE))).toBe(0n);
    expect(caps & (1n << BigInt(C.CAP_SYS_ADMIN))).not.toBe(0n);
  });
});

describe('mounts', () => {
  testNeeding(
    { root: true },
    'the private clone is read-only, unseen, and without what is mounted beneath',
    () => {
      made('a', 'content');
      fs.mkdirSync(path.join(at.path, 'sub'));
      expect(
        mounts.mount('tmpfs', path.join(at.path, 'sub'), 'tmpfs', C.MS_NOSUID, 'size=64k,mode=700'),
      ).toBe(0);
      try {
        expect(statOf('sub').mode & 0o777).toBe(0o700);
        fs.writeFileSync(path.join(at.path, 'sub', 'hidden'), '');
        const mountinfo = fs.readFileSync('/proc/self/mountinfo', 'utf8');
        const clone = keep(mounts.privateReadOnlyClone(at.path));
        expect(fs.readFileSync('/proc/self/mountinfo', 'utf8')).toBe(mountinfo);
        const buf = Buffer.alloc(7);
        expect(file.pread(keep(file.openat(clone, 'a', C.O_RDONLY)), buf, 0, 7, 0)).toBe(7);
        expect(buf.toString()).toBe('content');
        expect(file.openat(clone, 'a', C.O_RDWR)).toBe(-E.EROFS);
        expect(file.openat(clone, 'new', C.O_CREAT | C.O_WRONLY)).toBe(-E.EROFS);
        expect(names.mkdirat(clone, 'new', 0o755)).toBe(-E.EROFS);
        expect(names.unlinkat(clone, 'a', 0)).toBe(-E.EROFS);
        expect(names.renameat2(clone, 'a', clone, 'b', 0)).toBe(-E.EROFS);
        expect(stats.fchmodat(clone, 'a', 0o600)).toBe(-E.EROFS);
        expect(xattrs.setxattr(clone, 'a', 'user.x', Buffer.from('x'), 0)).toBe(-E.EROFS);
        expect(stats.utimensat(clone, '', 0, 0, 0, 0)).toBe(-E.EROFS);
        expect(names.linkat(at.fd, 'a', clone, 'b', 0)).toBe(-E.EROFS);
        expect(file.openat(clone, 'sub/hidden', C.O_RDONLY)).toBe(-E.ENOENT);
        made('later');
        keep(file.openat(clone, 'later', C.O_RDONLY));
        expect(statOf('later').ino).toBeGreaterThan(0);
      } finally {
        expect(mounts.umount2(path.join(at.path, 'sub'), C.MNT_DETACH | C.UMOUNT_NOFOLLOW)).toBe(0);
      }
      expect(mounts.umount2(path.join(at.path, 'sub'), 0)).toBe(-E.EINVAL);
      expect(mounts.umount2(path.join(at.path, 'none'), 0)).toBe(-E.ENOENT);
      expect(mounts.mount('x', at.path, 'nonsense', 0, '')).toBe(-E.ENODEV);
      expect(mounts.mount('x', at.path, 'tmpfs', 0, 'x'.repeat(5000))).toBe(-E.EINVAL);
      expect(mounts.privateReadOnlyClone(path.join(at.path, 'none'))).toBe(-E.ENOENT);
    },
  );
});

describe('sockets', () => {
  test('a descriptor comes through', () => {
    const [a, b] = (socketpair() as [number, number]).map(keep) as [number, number];
    const sent = made('a', 'content');
    sendFd(b, sent);
    const got = keep(recvFd(a));
    expect(got).not.toBe(sent);
    expect(fs.readlinkSync(`/proc/self/fd/${got}`)).toBe(path.join(at.path, 'a'));
    expect(fs.readFileSync(`/proc/self/fdinfo/${got}`, 'utf8')).toMatch(/flags:\s*0?2\d{6}\b/);
  });

  test('a message without one, the end, and what is no socket', () => {
    const [a, b] = socketpair() as [number, number];
    keep(a);
    file.write(b, Buffer.from('x'), 0, 1);
    expect(recvFd(a)).toBe(-E.ENOMSG);
    file.close(b);
    expect(recvFd(a)).toBe(-E.ECONNRESET);
    expect(recvFd(made('f'))).toBe(-E.ENOTSOCK);
    expect(recvFd(-1)).toBe(-E.EBADF);
  });
});

/** sendmsg(2) with SCM_RIGHTS, as fusermount3 does it. */
function sendFd(sock: number, fd: number): void {
  const sendmsg = koffi.load(null).func('sendmsg', 'int', ['int', 'void *', 'int']);
  const data = Buffer.from([0]);
  const control = Buffer.alloc(24);
  control.writeUInt32LE(20, 0);
  control.writeUInt32LE(1, 8);
  control.writeUInt32LE(1, 12);
  control.writeUInt32LE(fd, 16);
  const iov = Buffer.alloc(16);
  iov.writeBigUInt64LE(koffi.address(data), 0);
  iov.writeUInt32LE(1, 8);
  const message = Buffer.alloc(56);
  message.writeBigUInt64LE(koffi.address(iov), 16);
  message.writeUInt32LE(1, 24);
  message.writeBigUInt64LE(koffi.address(control), 32);
  message.writeUInt32LE(24, 40);
  expect(sendmsg(sock, message, 0)).toBe(1);
}
