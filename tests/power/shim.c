/* Counts the system calls of a process tree that change one file system, and ends all of it before the N-th.

   POWER_ROOT   where the file system is mounted      POWER_COUNT  a file of 8 bytes, mapped by everybody
   POWER_AT     N, from 1; 0 counts only              POWER_MODE   2: what was not synced is lost; 1: the file system's
                                                                   journal is written first; 0: the processes end only
   POWER_DROP   if set, fsync, fdatasync and syncfs do nothing: for a test of the test

   How: EXT4_IOC_SHUTDOWN, as xfstests do it, then SIGKILL to the process group. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SHUTDOWN 0x8004587DU

static const char *root;
static size_t root_length;
static dev_t device;
static uint64_t *count, at;
static uint32_t mode;
static int drops;

__attribute__((constructor)) static void begin(void) {
  struct stat found;
  const char *file = getenv("POWER_COUNT");
  root = getenv("POWER_ROOT");
  if (!root || !file || stat(root, &found)) { root = NULL; return; }
  root_length = strlen(root);
  device = found.st_dev;
  at = strtoull(getenv("POWER_AT") ?: "0", NULL, 10);
  mode = (uint32_t)atoi(getenv("POWER_MODE") ?: "2");
  drops = getenv("POWER_DROP") != NULL;
  int fd = open(file, O_RDWR | O_CLOEXEC);
  count = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (count == MAP_FAILED) abort();
  close(fd);
}

static void change(void) {
  if (__atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST) != at) return;
  if (mode) {
    int fd = open(root, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, SHUTDOWN, &mode)) abort();
  }
  kill(0, SIGKILL);
  for (;;) pause();
}

static int below(int folder, const char *path) {
  struct stat found;
  if (!root || !path) return 0;
  if (path[0] == '/') return !strncmp(path, root, root_length);
  if (folder == AT_FDCWD) return !stat(".", &found) && found.st_dev == device;
  return !fstat(folder, &found) && found.st_dev == device;
}

static int within(int fd) {
  struct stat found;
  return root && !fstat(fd, &found) && found.st_dev == device && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode));
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define WRAP(type, name, parameters, arguments, counts) \
  type name parameters { REAL(name); if (counts) change(); return real arguments; }
#define SYNC(name) \
  int name(int fd) { REAL(name); if (within(fd)) { change(); if (drops) return 0; } return real(fd); }
#define OPEN(name, folder, parameters, arguments) \
  int name parameters { \
    REAL(name); mode_t permissions = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); permissions = va_arg(more, mode_t); va_end(more); } \
    if ((flags & (O_CREAT | O_TRUNC)) && below(folder, path)) change(); \
    return real arguments; }

WRAP(ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n), within(fd))
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t o), (fd, data, n, o), within(fd))
WRAP(ssize_t, pwrite, (int fd, const void *data, size_t n, off_t o), (fd, data, n, o), within(fd))
WRAP(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), within(fd))
WRAP(ssize_t, copy_file_range, (int a, off64_t *ao, int b, off64_t *bo, size_t n, unsigned f), (a, ao, b, bo, n, f), within(b))
WRAP(int, ftruncate, (int fd, off_t n), (fd, n), within(fd))
WRAP(int, ftruncate64, (int fd, off64_t n), (fd, n), within(fd))
WRAP(int, fchmod, (int fd, mode_t m), (fd, m), within(fd))
WRAP(int, rename, (const char *a, const char *b), (a, b), below(AT_FDCWD, b))
WRAP(int, renameat, (int d, const char *a, int e, const char *b), (d, a, e, b), below(e, b))
WRAP(int, renameat2, (int d, const char *a, int e, const char *b, unsigned f), (d, a, e, b, f), below(e, b))
WRAP(int, unlink, (const char *path), (path), below(AT_FDCWD, path))
WRAP(int, unlinkat, (int d, const char *path, int f), (d, path, f), below(d, path))
WRAP(int, rmdir, (const char *path), (path), below(AT_FDCWD, path))
WRAP(int, mkdir, (const char *path, mode_t m), (path, m), below(AT_FDCWD, path))
WRAP(int, mkdirat, (int d, const char *path, mode_t m), (d, path, m), below(d, path))
WRAP(int, symlink, (const char *to, const char *path), (to, path), below(AT_FDCWD, path))
WRAP(int, symlinkat, (const char *to, int d, const char *path), (to, d, path), below(d, path))
WRAP(int, link, (const char *a, const char *b), (a, b), below(AT_FDCWD, b))
WRAP(int, linkat, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f), below(e, b))
WRAP(int, chmod, (const char *path, mode_t m), (path, m), below(AT_FDCWD, path))
SYNC(fsync)
SYNC(fdatasync)
SYNC(syncfs)
OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, permissions))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, permissions))
OPEN(openat, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, permissions))
OPEN(openat64, folder, (int folder, const char *path, int flags, ...), (folder, path, flags, permissions))
