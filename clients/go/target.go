package wavegate

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/grpc/resolver"
)

// DefaultTarget is where the gateway is unless the caller or WAVEGATE_TARGET says otherwise.
const DefaultTarget = "127.0.0.1:50051"

const defaultPort = "50051"

var notInHost = regexp.MustCompile(`[\s/@?#]`)

// checkTarget says what is wrong with the way a target is written. With TLS the port may be left out: 443.
func checkTarget(target string, tls bool) error {
	if strings.TrimSpace(target) == "" {
		return argumentError("the target is empty: write HOST:PORT")
	}
	if scheme, _, found := strings.Cut(target, ":"); found && isNameScheme(scheme) {
		return nil
	}
	if strings.Contains(target, "://") {
		return argumentError("%s", withoutScheme(target))
	}
	host, port, hasPort := splitTarget(target)
	switch {
	case host == "" || notInHost.MatchString(target):
		return argumentError("%q is no HOST:PORT", target)
	case strings.Contains(host, ":") && !strings.HasPrefix(target, "["):
		return argumentError("an IPv6 address stands in brackets: write [%s]:PORT, not %q", target, target)
	case !hasPort && tls:
		return nil
	case !hasPort:
		return argumentError("%q names no port: write %s:%s, or wherever it listens", target, target, defaultPort)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return argumentError("%q is no port: write a number from 1 to 65535, as in %s:%s", port, host, defaultPort)
	}
	return nil
}

// isNameScheme says whether gRPC reads what follows the scheme.
func isNameScheme(scheme string) bool {
	scheme = strings.ToLower(scheme)
	return scheme == "ipv4" || scheme == "ipv6" || resolver.Get(scheme) != nil
}

func withoutScheme(target string) string {
	scheme, rest, _ := strings.Cut(target, "://")
	address, _, _ := strings.Cut(rest, "/")
	address = address[strings.LastIndex(address, "@")+1:]
	if _, _, hasPort := splitTarget(address); !hasPort && address != "" {
		if scheme == "https" {
			address += ":443"
		} else {
			address += ":" + defaultPort
		}
	}
	if address == "" {
		address = "HOST:PORT"
	}
	encrypted := ""
	if scheme == "https" || scheme == "grpcs" {
		encrypted = ", and WithTLS for an encrypted connection"
	}
	return fmt.Sprintf("a target has no %s:// in front: write %s%s", scheme, address, encrypted)
}

// splitTarget gives host and port. An IPv6 address without brackets is all host.
func splitTarget(address string) (host, port string, hasPort bool) {
	if inner, bracketed := strings.CutPrefix(address, "["); bracketed {
		host, after, closed := strings.Cut(inner, "]")
		if !closed {
			return "", "", false
		}
		port, hasPort = strings.CutPrefix(after, ":")
		return host, port, hasPort
	}
	at := strings.LastIndex(address, ":")
	if at < 0 || strings.Contains(address[:at], ":") {
		return address, "", false
	}
	return address[:at], address[at+1:], true
}

// addressList resolves `ipv4:` and `ipv6:` targets, lists of addresses without a name, as gRPC has them in other
// languages. Together with round robin they are a fixed set of gateways behind one target.
type addressList struct{ scheme string }

func (l addressList) Scheme() string { return l.scheme }

// Build implements resolver.Builder.
func (l addressList) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (
	resolver.Resolver, error,
) {
	var addresses []resolver.Address
	for address := range strings.SplitSeq(target.Endpoint(), ",") {
		parsed, err := netip.ParseAddrPort(address)
		if err != nil || parsed.Addr().Is4() != (l.scheme == "ipv4") {
			return nil, fmt.Errorf("%q is no address of %s with a port", address, l.scheme)
		}
		addresses = append(addresses, resolver.Address{Addr: net.JoinHostPort(parsed.Addr().String(),
			strconv.Itoa(int(parsed.Port())))})
	}
	return fixedAddresses{}, cc.UpdateState(resolver.State{Addresses: addresses})
}

type fixedAddresses struct{}

func (fixedAddresses) ResolveNow(resolver.ResolveNowOptions) {}
func (fixedAddresses) Close()                                {}
