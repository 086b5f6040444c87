// What one sees of a tree by names: listings, attributes, contents. For a child process that looks at a mount, and
// for the test itself, which looks at the base.
import * as fs from 'node:fs';

/** `probes`: names that are asked for in each directory, whether they are listed or not. */
export function lookAt(path, probes = []) {
  let stat;
  try {
    stat = fs.lstatSync(path, { bigint: true });
  } catch (error) {
    return error.code;
  }
  const seen = { mode: stat.mode.toString(8), uid: String(stat.uid), gid: String(stat.gid) };
  if (stat.isSymbolicLink()) return { ...seen, target: fs.readlinkSync(path) };
  if (stat.isDirectory()) {
    const listed = fs.readdirSync(path).sort();
    const names = new Set([...listed, ...probes]);
    return {
      ...seen,
      listed,
      names: Object.fromEntries([...names].map((name) => [name, lookAt(`${path}/${name}`, probes)])),
    };
  }
  const { size, mtimeNs, nlink } = stat;
  const whole = stat.isFile() ? fs.readFileSync(path, 'latin1') : '';
  return { ...seen, size: String(size), mtime: String(mtimeNs), nlink: String(nlink), whole };
}
