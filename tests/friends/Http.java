import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Arrays;
import java.util.concurrent.Executors;
import java.util.stream.IntStream;

/**
 * HTTP on the Java platform's own server and client.
 *
 * <pre>
 *   java Http.java serve HOST PORT   gives back what it's sent
 *   java Http.java ask HOST PORT     "done", once all clients had back what they sent
 * </pre>
 */
final class Http {
    private static final int CLIENTS = 10;
    private static final int QUESTIONS = 40;

    private static void serve(InetSocketAddress address) throws Exception {
        var server = HttpServer.create(address, 0);
        server.setExecutor(Executors.newFixedThreadPool(CLIENTS));
        server.createContext("/", exchange -> {
            var body = exchange.getRequestBody().readAllBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }

    private static void client(URI server, int seed) {
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        for (int turn = 0; turn < QUESTIONS; turn++) {
            var body = new byte[1 + (seed * 7919 + turn * 104729) % 90000];
            Arrays.fill(body, (byte) (seed + turn));
            var request = HttpRequest.newBuilder(server).POST(HttpRequest.BodyPublishers.ofByteArray(body)).build();
            try {
                if (!Arrays.equals(client.send(request, HttpResponse.BodyHandlers.ofByteArray()).body(), body)) {
                    throw new IllegalStateException("another answer");
                }
            } catch (java.io.IOException | InterruptedException error) {
                throw new IllegalStateException(error);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        String host = arguments[1];
        int port = Integer.parseInt(arguments[2]);
        if (arguments[0].equals("serve")) {
            serve(new InetSocketAddress(host, port));
            return;
        }
        var server = URI.create("http://" + host + ":" + port + "/");
        IntStream.range(0, CLIENTS).parallel().forEach(seed -> client(server, seed));
        System.out.println("done");
        System.exit(0);
    }
}
