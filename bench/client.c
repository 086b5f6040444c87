/* The client of a measurement: does one workload in the directory under test and prints, as one line of JSON, how
 * long it took and the processor time it used. Compiled when the bench starts; client.mjs stands in for it where
 * there is no compiler. What is not the workload (names, warming up, starting) is outside the clock.
 * Relative paths throughout: what lies above the directory is not what is measured. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static long must(long result, const char *what) {
  if (result < 0) fail(what);
  return result;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static double seconds_of(struct timeval t) { return t.tv_sec + t.tv_usec / 1e6; }

static double cpu(int whose) {
  struct rusage used;
  getrusage(whose, &used);
  return seconds_of(used.ru_utime) + seconds_of(used.ru_stime);
}

static double wall_start, cpu_start;

static void begin(int whose) {
  cpu_start = cpu(whose);
  wall_start = now();
}

static void end(int whose, double operations) {
  double wall = now() - wall_start;
  printf("{\"seconds\":%.9f,\"cpu\":%.9f,\"operations\":%.0f}\n", wall, cpu(whose) - cpu_start, operations);
}

static char buffer[1 << 20];

/* The names that `tree` makes. */
static char (*names)[48];

static long name_files(long dirs, long files) {
  names = calloc(dirs * files, sizeof *names);
  if (!names) fail("calloc");
  for (long i = 0; i < dirs * files; i++) snprintf(names[i], sizeof *names, "%ld/file%ld", i / files, i % files);
  return dirs * files;
}

static void create(const char *name, size_t bytes) {
  int fd = must(open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644), name);
  if (bytes) must(write(fd, buffer, bytes), name);
  must(close(fd), name);
}

static void make_tree(long dirs, long files, size_t bytes) {
  char dir[32];
  memset(buffer, 'k', bytes);
  long count = name_files(dirs, files);
  for (long i = 0; i < dirs; i++) {
    snprintf(dir, sizeof dir, "%ld", i);
    must(mkdir(dir, 0755), dir);
  }
  for (long i = 0; i < count; i++) create(names[i], bytes);
}

static void stat_all(long count, long operations) {
  struct stat st;
  for (long i = 0; i < operations; i++) must(lstat(names[i % count], &st), names[i % count]);
}

static void open_all(long count, long operations) {
  for (long i = 0; i < operations; i++) {
    int fd = must(open(names[i % count], O_RDONLY | O_CLOEXEC), names[i % count]);
    must(read(fd, buffer, 4096), names[i % count]);
    close(fd);
  }
}

static void create_all(long operations, size_t bytes) {
  char name[32];
  for (long i = 0; i < operations; i++) {
    snprintf(name, sizeof name, "new%ld", i % 50);
    create(name, bytes);
    must(unlink(name), name);
  }
}

/* Names and stat of everything beneath the directory. */
static long walk(int at, const char *name) {
  long found = 0;
  struct stat st;
  DIR *dir = fdopendir(must(openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), name));
  if (!dir) fail(name);
  for (struct dirent *entry; (entry = readdir(dir));) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    must(fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW), entry->d_name);
    found += 1 + (S_ISDIR(st.st_mode) ? walk(dirfd(dir), entry->d_name) : 0);
  }
  closedir(dir);
  return found;
}

static long read_whole(const char *name) {
  long got, sum = 0;
  int fd = must(open(name, O_RDONLY | O_CLOEXEC), name);
  while ((got = must(read(fd, buffer, sizeof buffer), name)) > 0) sum += got;
  close(fd);
  return sum;
}

static void write_whole(const char *name, long mebibytes) {
  memset(buffer, 'w', sizeof buffer);
  int fd = must(open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644), name);
  for (long i = 0; i < mebibytes; i++) must(write(fd, buffer, sizeof buffer), name);
  must(close(fd), name);
}

static void read_random(const char *name, long operations) {
  int fd = must(open(name, O_RDONLY | O_CLOEXEC), name);
  uint64_t blocks = must(lseek(fd, 0, SEEK_END), name) / 4096, state = 1;
  begin(RUSAGE_SELF);
  for (long i = 0; i < operations; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    must(pread(fd, buffer, 4096, (state >> 33) % blocks * 4096), name);
  }
  end(RUSAGE_SELF, operations);
}

static void read_mapped(const char *name) {
  volatile char sum = 0;
  begin(RUSAGE_SELF);
  int fd = must(open(name, O_RDONLY | O_CLOEXEC), name);
  off_t size = must(lseek(fd, 0, SEEK_END), name);
  char *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) fail(name);
  for (off_t at = 0; at < size; at += 4096) sum += map[at];
  munmap(map, size);
  close(fd);
  end(RUSAGE_SELF, size >> 20);
}

/* From the open that makes the union copy the file up until its first changed byte is on disk. */
static void copy_up(const char *name) {
  begin(RUSAGE_SELF);
  int fd = must(open(name, O_WRONLY | O_CLOEXEC), name);
  must(pwrite(fd, "x", 1, 0), name);
  must(fdatasync(fd), name);
  close(fd);
  end(RUSAGE_SELF, 1);
}

/* Until its standard input ends. */
static void storm(long count) {
  long done = 0;
  stat_all(count, count);
  must(fcntl(0, F_SETFL, O_NONBLOCK), "stdin");
  begin(RUSAGE_SELF);
  do {
    stat_all(count, count);
    done += count;
  } while (read(0, buffer, 1) != 0);
  end(RUSAGE_SELF, done);
}

/* Reads a file until both texts are in it. */
static void await_texts(const char *name, const char *one, const char *other) {
  begin(RUSAGE_SELF);
  for (double until = now() + 10; now() < until;) {
    int fd = must(open(name, O_RDONLY | O_CLOEXEC), name);
    long got = must(read(fd, buffer, sizeof buffer - 1), name);
    close(fd);
    buffer[got] = 0;
    if (strstr(buffer, one) && strstr(buffer, other)) {
      end(RUSAGE_SELF, 1);
      return;
    }
  }
  errno = ETIMEDOUT;
  fail(name);
}

/* What processes have used so far, with the threads that have ended. */
static void used_by(int count, char **pids) {
  double sum = 0;
  for (int i = 0; i < count; i++) {
    struct timespec t;
    clockid_t clock;
    if (clock_getcpuclockid(atoi(pids[i]), &clock) == 0 && clock_gettime(clock, &t) == 0) {
      sum += t.tv_sec + t.tv_nsec / 1e9;
    }
  }
  printf("%.9f\n", sum);
}

static void command(char **argv) {
  int status;
  begin(RUSAGE_CHILDREN);
  pid_t pid = must(fork(), "fork");
  if (pid == 0) {
    must(dup2(2, 1), "dup2");
    execvp(argv[0], argv);
    fail(argv[0]);
  }
  must(waitpid(pid, &status, 0), argv[0]);
  if (status != 0) {
    fprintf(stderr, "%s ended with %d\n", argv[0], WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    exit(1);
  }
  end(RUSAGE_CHILDREN, 1);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  const char *work = argv[1];
  long n[4] = {0};
  for (int i = 3; i < argc && i < 7; i++) n[i - 3] = atol(argv[i]);
  must(chdir(argv[2]), argv[2]);
  if (!strcmp(work, "tree")) make_tree(n[0], n[1], n[2]);
  else if (!strcmp(work, "big")) write_whole(argv[3], n[1]);
  else if (!strcmp(work, "lstat") || !strcmp(work, "open")) {
    void (*one)(long, long) = work[0] == 'l' ? stat_all : open_all;
    long count = name_files(n[0], n[1]);
    begin(RUSAGE_SELF);
    one(count, n[2]);
    end(RUSAGE_SELF, n[2]);
  } else if (!strcmp(work, "create")) {
    begin(RUSAGE_SELF);
    create_all(n[0], n[1]);
    end(RUSAGE_SELF, n[0]);
  } else if (!strcmp(work, "walk")) {
    begin(RUSAGE_SELF);
    long found = walk(AT_FDCWD, ".");
    end(RUSAGE_SELF, found);
  } else if (!strcmp(work, "read")) {
    begin(RUSAGE_SELF);
    long bytes = read_whole(argv[3]);
    end(RUSAGE_SELF, bytes >> 20);
  } else if (!strcmp(work, "write")) {
    begin(RUSAGE_SELF);
    write_whole(argv[3], n[1]);
    end(RUSAGE_SELF, n[1]);
  } else if (!strcmp(work, "write-away")) {
    begin(RUSAGE_SELF);
    for (long i = 0; i < n[2]; i++) {
      write_whole(argv[3], n[1]);
      must(unlink(argv[3]), argv[3]);
    }
    end(RUSAGE_SELF, n[1] * n[2]);
  } else if (!strcmp(work, "random")) read_random(argv[3], n[1]);
  else if (!strcmp(work, "mmap")) read_mapped(argv[3]);
  else if (!strcmp(work, "copy-up")) copy_up(argv[3]);
  else if (!strcmp(work, "storm")) storm(name_files(n[0], n[1]));
  else if (!strcmp(work, "await") && argc > 5) await_texts(argv[3], argv[4], argv[5]);
  else if (!strcmp(work, "cpu")) used_by(argc - 3, argv + 3);
  else if (!strcmp(work, "run") && argc > 3) command(argv + 3);
  else {
    fprintf(stderr, "%s: no such workload\n", work);
    return 2;
  }
  return 0;
}
