// Directories for one test, on the disk (ext4 as a rule: xattrs, no reflinks) or in memory (tmpfs).
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { tracked } from './cleanup.ts';
import { mountsBeneath, takeDown } from './mounts.ts';

export type Where = 'disk' | 'memory';

const parents: Record<Where, string> = { disk: '/var/tmp', memory: '/dev/shm' };

/** A directory, and what takes it away with whatever is still mounted beneath it: at the end of the file at last. */
export async function makeTemp(where: Where): Promise<{ dir: string; remove: () => Promise<void> }> {
  const dir = await fs.mkdtemp(path.join(parents[where], 'kasane-test-'));
  await fs.chmod(dir, 0o755);
  const remove = tracked(async () => {
    for (const mount of mountsBeneath(dir).reverse()) await takeDown(mount.mountPoint);
    if (mountsBeneath(dir).length > 0) throw new Error(`still mounted beneath ${dir}, so it stays`);
    await fs.rm(dir, { recursive: true, force: true });
  });
  return { dir, remove };
}

/** Gone afterwards. */
export async function withTemp<T>(where: Where, body: (dir: string) => Promise<T>): Promise<T> {
  const { dir, remove } = await makeTemp(where);
  try {
    return await body(dir);
  } finally {
    await remove();
  }
}
