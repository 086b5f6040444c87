// Directories for one test, on the disk (ext4 as a rule: xattrs, no reflinks) or in memory (tmpfs).
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { tracked } from './cleanup.ts';
import { mountsBeneath, takeDown } from './mounts.ts';

export type Where = 'disk' | 'memory';

const parents: Record<Where, string> = { disk: '/var/tmp', memory: '/dev/shm' };

/** Gone afterwards, with whatever is still mounted beneath it. */
export async function withTemp<T>(where: Where, body: (dir: string) => Promise<T>): Promise<T> {
  const dir = await fs.mkdtemp(path.join(parents[where], 'kasane-test-'));
  await fs.chmod(dir, 0o755);
  const remove = tracked(async () => {
    for (const mount of mountsBeneath(dir).reverse()) await takeDown(mount.mountPoint);
    if (mountsBeneath(dir).length > 0) throw new Error(`still mounted beneath ${dir}, so it stays`);
    await fs.rm(dir, { recursive: true, force: true });
  });
  try {
    return await body(dir);
  } finally {
    await remove();
  }
}
