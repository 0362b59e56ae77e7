/* ---- what has another number here ---- */

static char *text_of(const char *path, size_t *length)
{
	size_t size = 0, room = 1 << 16;
	char *text = malloc(room + 1);
	FILE *file = fopen(path, "re");

	if (!file)
		not_there("%s: %s", path, strerror(errno));
	while (text && (size += fread(text + size, 1, room - size, file)) == room)
		text = realloc(text, (room *= 2) + 1);
	fclose(file);
	if (!text)
		not_there("%s: no memory", path);
	text[size] = 0;
	if (length)
		*length = size;
	return text;
}

static uint64_t number_in(const char *path)
{
	char *text = text_of(path, NULL);
	uint64_t number = strtoull(text, NULL, 10);

	free(text);
	return number;
}

static uint64_t pmu(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "/sys/bus/event_source/devices/%s/type", name);
	return number_in(path);
}

static uint64_t tracepoint(const char *name)
{
	char path[512];
	const char *root = "/sys/kernel/tracing", *colon = strchr(name, ':');

	if (access("/sys/kernel/tracing/events", F_OK))
		root = "/sys/kernel/debug/tracing";
	snprintf(path, sizeof(path), "%s/events/%.*s/%s/id", root,
		 colon ? (int)(colon - name) : 0, name, colon ? colon + 1 : name);
	return number_in(path);
}

static uint64_t symbol(const char *name, uint64_t recorded)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	unsigned long long address;
	char line[1024], found[512];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%llx %*c %511s", &address, found) == 2 &&
		    !strcmp(found, name) && address) {
			fclose(file);
			return address;
		}
	if (file)
		fclose(file);
	return recorded;
}

static uint64_t ident(struct handle *handle)
{
	static const char *const keys[] = { "link_id:", "map_id:", "prog_id:", "btf_id:" };
	char path[64], *info, *found;
	uint64_t number;
	size_t i;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", (int)fd_of(handle));
	info = text_of(path, NULL);
	for (i = 0; i < 4; i++)
		if ((found = strstr(info, keys[i])) && (found == info || found[-1] == '\n')) {
			number = strtoull(found + strlen(keys[i]), NULL, 10);
			free(info);
			return number;
		}
	not_there("what call %d returned has no id", handle->seq);
	return 0;
}

static uint64_t mapped(struct handle *handle)
{
	mmap(NULL, 2 * sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED,
	     fd_of(handle), 0);
	return fd_of(handle);
}

static uint64_t own_pid(void)
{
	return getpid();
}

/* A type of the running kernel's BTF, by name (Documentation/bpf/btf.rst). */
static uint64_t vmlinux_type(const char *name, uint64_t recorded)
{
	static const int kinds[] = { 12, 4, 5, 8, 14 }; /* FUNC, STRUCT, UNION, TYPEDEF, VAR */
	static const int once[20] = { [1] = 4, [3] = 12, [14] = 4, [17] = 4 };
	static const int each[20] = { [4] = 12, [5] = 12, [6] = 8, [13] = 8, [15] = 12, [19] = 12 };
	static char *btf;
	static size_t size;
	uint64_t found[5] = { 0 };
	uint32_t head[6], type[3], number = 1;
	size_t at, end, strings;
	int i;

	if (!btf)
		btf = text_of("/sys/kernel/btf/vmlinux", &size);
	memcpy(head, btf, sizeof(head));
	at = head[1] + head[2];
	end = at + head[3];
	strings = head[1] + head[4];
	for (; at + 12 <= end && end <= size; number++) {
		uint32_t kind, members;

		memcpy(type, btf + at, sizeof(type));
		kind = type[1] >> 24 & 31;
		members = type[1] & 0xffff;
		for (i = 0; i < 5; i++)
			if ((int)kind == kinds[i] && !found[i] && strings + type[0] < size &&
			    !strcmp(btf + strings + type[0], name))
				found[i] = number;
		at += 12 + (kind < 20 ? once[kind] + (size_t)each[kind] * members : 0);
	}
	for (i = 0; i < 5; i++)
		if (found[i])
			return found[i];
	return recorded;
}

/* ---- places of our own ---- */

static char folders[256][512], mounts[64][512];
static struct { char path[256], name[128]; } probes[256];
static size_t folder_count, mount_count, probe_count;

static int space(int flag, const char *name)
{
	static int spaces;

	if (spaces & flag)
		return 0;
	if (unshare(flag))
		not_there("a %s namespace of its own: %s", name, strerror(errno));
	spaces |= flag;
	return 1;
}

static void folder(const char *path, int remembered)
{
	char part[512];
	size_t i;

	for (i = 1; path[i - 1] && i < sizeof(part); i++)
		if (path[i] == '/' || !path[i]) {
			snprintf(part, sizeof(part), "%.*s", (int)i, path);
			if (!mkdir(part, 0755) && remembered && folder_count < 256)
				snprintf(folders[folder_count++], 512, "%s", part);
		}
}

static uint64_t pin(const char *path, int parents, int there)
{
	char above[512];
	struct statfs what;

	if (space(CLONE_NEWNS, "mount")) {
		mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
		if (mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL))
			not_there("a bpffs of its own: %s", strerror(errno));
	}
	if (*path != '/')
		return ADDRESS(path);
	snprintf(above, sizeof(above), "%.*s", (int)(strrchr(path, '/') - path), path);
	if (parents && !strncmp(path, "/sys/fs/bpf/", 12)) {
		folder(above, 0);
	} else if (there && (statfs(above, &what) || what.f_type != (long)0xcafe4a11)) {
		folder(above, 1);
		if (!mount("bpf", above, "bpf", 0, NULL) && mount_count < 64)
			snprintf(mounts[mount_count++], 512, "%s", above);
	}
	return ADDRESS(path);
}

static uint64_t opened_with(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		not_there("%s: %s", path, strerror(errno));
	return fd;
}

static uint64_t opened(const char *path)
{
	return opened_with(path, O_RDONLY);
}

static uint64_t appended(const char *path)
{
	return opened_with(path, O_WRONLY | O_APPEND);
}

static uint64_t cgroup(const char *path)
{
	char own[512], root[256] = "", *lines = text_of("/proc/self/mountinfo", NULL), *line;

	for (line = strtok(lines, "\n"); line; line = strtok(NULL, "\n"))
		if (strstr(line, " - cgroup2 ") &&
		    sscanf(line, "%*s %*s %*s %*s %255s", root) == 1)
			break;
	free(lines);
	if (!*root) {
		strcpy(root, "/tmp/bpfstrace-repro-XXXXXX");
		if (!mkdtemp(root) || mount("cgroup2", root, "cgroup2", 0, NULL))
			not_there("there is no cgroup2");
		strcpy(folders[folder_count++], root);
		strcpy(mounts[mount_count++], root);
	}
	if (!strncmp(path, "/sys/fs/cgroup", 14))
		path += 14;
	if (!strncmp(path, "/unified", 8))
		path += 8;
	snprintf(own, sizeof(own), "%s/bpfstrace-repro-%d%s", root, getpid(), path);
	folder(own, 1);
	return opened(own);
}

static uint64_t netns(void)
{
	space(CLONE_NEWNET, "network");
	return opened("/proc/self/ns/net");
}

static uint64_t udp_socket(const char *which)
{
	static struct { const char *which; int fd; } known[64];
	int i;

	for (i = 0; i < 64 && known[i].which; i++)
		if (!strcmp(known[i].which, which))
			return known[i].fd;
	if (i == 64)
		not_there("more than 64 sockets");
	known[i].which = which;
	known[i].fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return known[i].fd;
}

static uint64_t tun(const char *name)
{
	static char known[IFNAMSIZ];
	static int fd = -1;
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };

	if (fd >= 0 && !strcmp(known, name))
		return fd;
	space(CLONE_NEWNET, "network");
	fd = opened_with("/dev/net/tun", O_RDWR);
	snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
	snprintf(known, IFNAMSIZ, "%s", name);
	if (ioctl(fd, TUNSETIFF, &request))
		not_there("a tun device: %s", strerror(errno));
	return fd;
}

static char *attribute(char *at, int type, const void *data, size_t size)
{
	struct rtattr head = { .rta_len = RTA_LENGTH(size), .rta_type = type };

	memcpy(at, &head, sizeof(head));
	memcpy(at + RTA_LENGTH(0), data, size);
	return at + RTA_SPACE(size);
}

/* A pair of interfaces by RTM_NEWLINK, each in a network namespace of our own. */
static uint64_t device(const char *name, const char *kind)
{
	char request[1024] = "", data[256] = "", info[512] = "", peer[64], answer[4096];
	char *end, *to = data;
	struct nlmsghdr *head = (struct nlmsghdr *)request;
	uint32_t mode = 0; /* NETKIT_L3 */
	int channel;

	space(CLONE_NEWNET, "network");
	if (if_nametoindex(name))
		return if_nametoindex(name);
	memset(peer, 0, sizeof(struct ifinfomsg));
	snprintf(info, IFNAMSIZ, "%.13s_", name);
	end = attribute(peer + sizeof(struct ifinfomsg), IFLA_IFNAME, info, strlen(info) + 1);
	to = attribute(to, 1, peer, end - peer);
	if (!strcmp(kind, "netkit"))
		to = attribute(to, 3, &mode, sizeof(mode));
	end = attribute(info, IFLA_INFO_KIND, kind, strlen(kind) + 1);
	end = attribute(end, IFLA_INFO_DATA, data, to - data);
	to = request + NLMSG_LENGTH(sizeof(struct ifinfomsg));
	to = attribute(to, IFLA_IFNAME, name, strlen(name) + 1);
	to = attribute(to, IFLA_LINKINFO, info, end - info);
	head->nlmsg_len = to - request;
	head->nlmsg_type = RTM_NEWLINK;
	head->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
	channel = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (channel < 0 || send(channel, request, head->nlmsg_len, 0) < 0 ||
	    recv(channel, answer, sizeof(answer), 0) < 0 || !if_nametoindex(name))
		not_there("no interface %s, and none can be made", name);
	close(channel);
	return if_nametoindex(name);
}

/* What was defined in tracefs is taken away at the end. */
static void remember_probes(int fd, const char *text, size_t size)
{
	char copy[4096], name[128], link[64], *line, *save = NULL;
	ssize_t length;
	size_t i;

	snprintf(copy, sizeof(copy), "%.*s", (int)size, text);
	for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *colon = strchr(line, ':');

		if (!colon || sscanf(colon + 1, "%127s", name) != 1)
			continue;
		if (*line == '-') {
			for (i = 0; i < probe_count; i++)
				if (!strcmp(probes[i].name, name))
					*probes[i].path = 0;
		} else if (probe_count < 256) {
			snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
			length = readlink(link, probes[probe_count].path, 255);
			probes[probe_count].path[length < 0 ? 0 : length] = 0;
			strcpy(probes[probe_count++].name, name);
		}
	}
}

static int finish(void)
{
	size_t i;
	int fd;

	for (fd = 3; fd < 1 << 16; fd++)
		close(fd);
	for (i = probe_count; i--;) {
		if (!*probes[i].path)
			continue;
		fd = open(probes[i].path, O_WRONLY | O_APPEND);
		if (fd < 0 || dprintf(fd, "-:%s\n", probes[i].name) < 0)
			fprintf(stderr, "the probe %s stays\n", probes[i].name);
		close(fd);
	}
	for (i = mount_count; i--;)
		umount2(mounts[i], MNT_DETACH);
	for (i = folder_count; i--;)
		if (rmdir(folders[i]))
			fprintf(stderr, "%s stays: %s\n", folders[i], strerror(errno));
	printf("%d calls: %d as recorded", same + differ + may + not_issued, same);
	if (differ)
		printf(", %d %s", differ, differ == 1 ? "DIFFERS" : "DIFFER");
	if (may)
		printf(", %d that may differ", may);
	if (not_issued)
		printf(", %d not issued", not_issued);
	printf("\n");
	if (refused)
		printf("        who was refused had fewer privileges: try --as-recorded\n");
	return differ || not_issued;
}

static void start(int argc, char **argv)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };

	if (argc > 1 && !strcmp(argv[1], "--as-recorded") && !geteuid()) {
		as_recorded = 1;
	} else if (argc > 1) {
		fprintf(stderr, "usage: %s [--as-recorded]   (which takes root)\n", argv[0]);
		exit(2);
	}
	if (!setjmp(out)) /* what is attached to the network of the caller, stays within ours */
		space(CLONE_NEWNET, "network");
	setrlimit(RLIMIT_MEMLOCK, &all); /* what programs and maps counted as before 5.11 */
	printf("%6s  %-40s %-10s %s\n", "call", "", "recorded", "now");
}
