// Two Debian guests run at once from one base, each on a mount of its own, as User Mode Linux with hostfs: they
// change things, shut down, boot again with their changes, and get the base's update, also while they run.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { expect } from 'vitest';
import { bootUml, buildPackage, debianBase, type Guest, guestNeeds } from '../lib/guest.ts';
import { type Mount, startMount } from '../lib/kasane.ts';
import { mountTest } from '../lib/needs.ts';
import { runOk } from '../lib/run.ts';
import { withTemp } from '../lib/temp.ts';
import { hashTree } from '../lib/tree.ts';

const MINUTE = 60_000;
const names = ['web1', 'web2'] as const;

/** What each guest does at its boots, and says on its console. */
const script = (guest: string) => `#!/bin/sh
say() { echo "GUEST-$1" > /dev/console; }
n=$(($(cat /root/boots 2>/dev/null || echo 0) + 1)); echo $n > /root/boots
case $n in
1)
  useradd -m user-${guest} && dpkg -i /root/own.deb > /dev/null &&
    sed -i 's/^#\\?Port .*/Port 2${guest.slice(-1)}22/' /etc/ssh/sshd_config && say 1-changed
  ;;
2)
  id user-${guest} > /dev/null && own-${guest} && grep -q '^Port 2${guest.slice(-1)}22' /etc/ssh/sshd_config &&
    say 2-kept
  i=0
  while [ $i -lt 60 ] && ! { grep -q '^X11Forwarding no' /etc/ssh/sshd_config && shared | grep -q v2; }; do
    sleep 1; i=$((i + 1))
  done
  grep -q '^Port 2${guest.slice(-1)}22' /etc/ssh/sshd_config && grep -q '^X11Forwarding no' /etc/ssh/sshd_config &&
    shared | grep -q v2 && say 2-updated
  ;;
esac
systemctl poweroff
`;

const unit = `[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/guest-script
[Install]
WantedBy=multi-user.target
`;

async function prepareGuest(mount: Mount, guest: string, dir: string): Promise<void> {
  const own = await buildPackage(dir, {
    name: `own-${guest}`,
    version: '1',
    files: { [`usr/bin/own-${guest}`]: '#!/bin/sh\nexit 0\n' },
    conffiles: [],
  });
  await mount.write('root/own.deb', fs.readFileSync(own));
  await mount.write('usr/local/sbin/guest-script', script(guest));
  await mount.write('etc/systemd/system/guest.service', unit);
  await mount.write('etc/fstab', '/dev/root / hostfs defaults 0 0\n');
  await mount.sh('chmod 755 usr/local/sbin/guest-script');
  await mount.sh('ln -s ../guest.service etc/systemd/system/multi-user.target.wants/guest.service');
}

async function bootBoth(mounts: readonly Mount[], round: number): Promise<Guest[]> {
  return mounts.map((mount, i) => bootUml(mount.dir, `kasane-${process.pid}-${round}-${names[i]}`));
}

async function allSay(guests: readonly Guest[], text: string): Promise<void> {
  for (const guest of guests) {
    if (!(await guest.says(text, 4 * MINUTE))) {
      throw new Error(`a guest did not say ${text}:\n${guest.console().split('\n').slice(-20).join('\n')}`);
    }
  }
}

mountTest(
  'two guests boot from one base, keep their changes, and get its update while they run',
  () =>
    withTemp('disk', async (dir) => {
      const base = await debianBase(dir);
      const shared = (version: string) =>
        buildPackage(dir, {
          name: 'shared',
          version,
          files: { 'usr/bin/shared': `#!/bin/sh\necho v${version}\n` },
          conffiles: [],
        });
      await runOk('dpkg', [`--root=${base}`, '-i', await shared('1')], { timeout: MINUTE });
      const before = await hashTree(base);
      const mounts: Mount[] = [];
      for (const guest of names) {
        const overlay = path.join(dir, `${guest}.overlay`);
        const mountPoint = path.join(dir, guest);
        fs.mkdirSync(overlay);
        fs.mkdirSync(mountPoint);
        const mount = await startMount({ base, overlay, mountPoint, options: ['-o', 'suid,dev'] });
        mounts.push(mount);
        await prepareGuest(mount, guest, dir);
      }
      const first = await bootBoth(mounts, 1);
      await allSay(first, 'GUEST-1-changed');
      await Promise.all(first.map((guest) => guest.ended));
      expect(await hashTree(base)).toEqual(before);

      const second = await bootBoth(mounts, 2);
      await allSay(second, 'GUEST-2-kept');
      // The update: a package of the base's, and a conffile that both guests have edited elsewhere.
      await runOk('dpkg', [`--root=${base}`, '-i', await shared('2')], { timeout: MINUTE });
      const conffile = path.join(base, 'etc/ssh/sshd_config');
      const updated = fs.readFileSync(conffile, 'utf8').replace(/^X11Forwarding yes$/m, 'X11Forwarding no');
      fs.writeFileSync(`${conffile}.dpkg-new`, updated);
      fs.renameSync(`${conffile}.dpkg-new`, conffile);
      await allSay(second, 'GUEST-2-updated');
      await Promise.all(second.map((guest) => guest.ended));
      const after = await hashTree(base);
      for (const [i, mount] of mounts.entries()) {
        expect(await mount.read('etc/ssh/sshd_config')).toMatch(new RegExp(`^Port 2${i + 1}22$`, 'm'));
        expect((await mount.kasane(['conflicts', mount.dir])).code).toBe(0);
        expect(await mount.umount()).toBe(0);
      }
      expect(await hashTree(base)).toEqual(after);
    }),
  { ...guestNeeds, timeout: 15 * MINUTE },
);
